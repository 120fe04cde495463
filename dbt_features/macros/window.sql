{#- The window of one build. Each value is a dbt var or, without it, an environment variable:

    period_start   BOUCLE_PERIOD_START   ISO date or moment in UTC; inclusive
    period_end     BOUCLE_PERIOD_END     ISO date or moment in UTC; exclusive; the as_of of the features built
    horizon_days   BOUCLE_HORIZON_DAYS   whole days; a label is known at as_of + horizon
    known_at       BOUCLE_KNOWN_AT       optional moment with time zone: only landings available by then count

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

{%- macro as_of() -%} {{ period_end() }} {%- endmacro -%}

{%- macro horizon() -%} to_days({{ window_value("horizon_days") }}) {%- endmacro -%}

{%- macro known_at() -%}
    {%- set value = var("known_at", env_var("BOUCLE_KNOWN_AT", "")) if execute else "" -%}
    cast('{{ value or "infinity" }}' as timestamptz)
{%- endmacro -%}
