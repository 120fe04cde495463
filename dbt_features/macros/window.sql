{#- The window of one build: feature rows with as_of in (period_start, period_end], labels that became known in it. Each
    value is a dbt var or, without it, an environment variable:

    period_start   BOUCLE_PERIOD_START   ISO date or moment in UTC; exclusive
    period_end     BOUCLE_PERIOD_END     ISO date or moment in UTC; inclusive
    horizon_days   BOUCLE_HORIZON_DAYS   whole days; a label is known at as_of + horizon
    known_at       BOUCLE_KNOWN_AT       optional moment in UTC: corrections that landed later do not count. Without it
                                         everything counts that has landed, and the rows built are restated ones.

    They are read at execution only: dbt parses a file again whose environment variables changed since the last run,
    and the whole project when `--vars` changed (2 s of a build of 5 s).
-#}
{%- macro window_value(name) -%}
    {%- if execute -%}
        {%- set value = var(name, env_var('BOUCLE_' ~ (name | upper), '')) | string -%}
        {%- if not value -%}
            {{ exceptions.raise_compiler_error(
                "The build has no '" ~ name ~ "'. Set BOUCLE_" ~ (name | upper) ~ " or pass --vars. Nothing was changed."
            ) }}
        {%- endif -%}
        {{- value -}}
    {%- endif -%}
{%- endmacro -%}

{%- macro period_start() -%} cast('{{ window_value("period_start") }}' as timestamp) {%- endmacro -%}

{%- macro period_end() -%} cast('{{ window_value("period_end") }}' as timestamp) {%- endmacro -%}

{%- macro horizon() -%} to_days({{ window_value("horizon_days") }}) {%- endmacro -%}

{%- macro known_at() -%}
    {%- set value = var("known_at", env_var("BOUCLE_KNOWN_AT", "")) if execute else "" -%}
    cast('{{ value or "infinity" }}' as timestamp)
{%- endmacro -%}

{#- Whether a moment lies in the window of the build. -#}
{%- macro in_window(moment) -%}
    {{ moment }} > {{ period_start() }} and {{ moment }} <= {{ period_end() }}
{%- endmacro -%}

{#- Ends of the periods (unit: 'day' or 'month') that lie in the window: the as_of of a model that asks once a period. -#}
{%- macro period_ends(unit) -%}
    unnest(generate_series(
        date_trunc('{{ unit }}', {{ period_start() }}) + interval 1 {{ unit }},
        {{ period_end() }},
        interval 1 {{ unit }}
    ))
{%- endmacro -%}

{#- Whether this build's rows are restated: made with corrections that landed after their as_of. Requests may look them
    up; no model learns from them. -#}
{%- macro restated() -%}
    {{ "false" if execute and var("known_at", env_var("BOUCLE_KNOWN_AT", "")) else "true" }}
{%- endmacro -%}

{#- Pre-hook of an incremental model: what an earlier build made of this window goes, rows that no longer exist too. -#}
{%- macro replace_window(moment, restated=none) -%}
    {%- if is_incremental() -%}
        delete from {{ this }}
        where {{ in_window(moment) }}
        {%- if restated is not none %} and restated = {{ restated }} {%- endif -%}
    {%- endif -%}
{%- endmacro -%}
