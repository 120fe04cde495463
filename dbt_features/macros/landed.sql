{#- Which landed rows a build may see: of each period its regular delivery, version 1, however late it came, because
    nothing was made of the period before it; and a correction, a later version, once it had landed by known_at. The
    newest of those counts. For a `where` over a table in `raw`; other filters still reach the scan. -#}
{%- macro in_force(source_table) -%}
    (period, version) in (
        select
            landed.period,
            max(landed.version)
        from {{ source_table }} as landed
        where landed.version = 1 or landed.landed_at <= {{ known_at() }}
        group by landed.period
    )
{%- endmacro -%}
