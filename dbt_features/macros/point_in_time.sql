{#- What was known at as_of. Both macros render a whole `select`; `rows` and `facts` name common table expressions or tables,
    `by` the columns that say whom a row and a fact are about. A fact counts from its `available_at` on, the moment itself
    included: nothing that became known later can get in. -#}

{#- Every row of `rows` with `columns` of the newest fact known at its as_of: the newest `event_time` wins, among equal ones
    the one that became known last. With `max_age`, such as '3 hours', a fact must be younger than that, counted by its
    event_time; nulls where none counts. Facts of one key with equal times must be equal.

    DuckDB's `ASOF JOIN` looks at one clock. Where facts have two, those that arrived late about an older event than was
    known by then go first: they never win. -#}
{%- macro as_of_join(
    rows, facts, by, columns, max_age=none, event_time='event_time', available_at='available_at'
) -%}
    select
        asked.*
        {%- for column in columns %},
        {% if max_age -%}
        case when known.{{ event_time }} > asked.as_of - interval '{{ max_age }}' then known.{{ column }} end as {{ column }}
        {%- else -%}
        known.{{ column }}
        {%- endif -%}
        {% endfor %}
    from {{ rows }} as asked
    asof left join
        {% if event_time == available_at -%}
        {{ facts }} as known
        {%- else -%}
        (
            select *
            from {{ facts }}
            qualify {{ event_time }} >= max({{ event_time }}) over (
                partition by {{ by | join(', ') }} order by {{ available_at }} range unbounded preceding
            )
        ) as known
        {%- endif %}
        on {% for key in by %}asked.{{ key }} = known.{{ key }} and {% endfor %}asked.as_of >= known.{{ available_at }}
{%- endmacro -%}

{#- Sums over what became known in the time before as_of: one row for each different (by, as_of) of `rows`, with `by`,
    `as_of` and a column `<measure>_<window>` for each measure and window: the sum of the measure over the facts with
    `as_of - window < available_at <= as_of`, 0 where there is none.

    `measures` maps names to SQL expressions over a fact, null counting as 0, of an exact type (integers, DECIMAL): sums are
    differences of running sums, and those of doubles differ from run to run. `windows` maps names to intervals, such as
    {'7d': '7 days'}.

    Keys that are asked about at most `few` moments get their sums from a join by range, which reads each fact once per
    moment. The others get them from running sums, which sort the facts once, and one `ASOF JOIN` with both edges of every
    window. Of 10M facts the join by range took a quarter of the time of running sums at one moment a key, four fifths at
    ten, twice the time at 100 (benchmarks/features.py). -#}
{%- macro window_aggregates(rows, facts, by, measures, windows, available_at='available_at', few=64) -%}
    {%- set keys = by | join(', ') -%}
    with asked as (

        select distinct {{ keys }}, as_of from {{ rows }}

    ),

    many as (

        select {{ keys }} from asked group by {{ keys }} having count(*) > {{ few }}

    ),

    -- Twice in use, each time with a filter of its own.
    measured as not materialized (

        select
            {{ keys }},
            {{ available_at }} as known_at
            {%- for name, expression in measures.items() %},
            {{ expression }} as {{ name }}
            {%- endfor %}
        from {{ facts }}

    ),

    few as (

        select
            {{ keys }},
            as_of,
            least({% for window in windows.values() %}as_of - interval '{{ window }}'{{ ", " if not loop.last }}{% endfor %}) as since
        from asked
        anti join many using ({{ keys }})

    ),

    by_range as (

        select
            {% for key in by %}few.{{ key }}, {% endfor %}few.as_of
            {%- for name, window in windows.items() %}
            {%- for measure in measures %},
            coalesce(sum({{ measure }}) filter (where known_at > few.as_of - interval '{{ window }}'), 0) as {{ measure }}_{{ name }}
            {%- endfor %}
            {%- endfor %}
        from few
        left join measured
            on {% for key in by %}few.{{ key }} = measured.{{ key }} and {% endfor %}known_at > since and known_at <= few.as_of
        group by {% for key in by %}few.{{ key }}, {% endfor %}few.as_of

    ),

    edges as (

        select {{ keys }}, as_of, as_of as edge_at, '' as edge from asked semi join many using ({{ keys }})
        {%- for name, window in windows.items() %}
        union all
        select {{ keys }}, as_of, as_of - interval '{{ window }}' as edge_at, '{{ name }}' as edge
        from asked
        semi join many using ({{ keys }})
        {%- endfor %}

    ),

    running as (

        select
            {{ keys }},
            known_at
            {%- for name in measures %},
            sum({{ name }}) over so_far as {{ name }}
            {%- endfor %}
        from measured
        semi join many using ({{ keys }})
        -- Older facts are in no window.
        where known_at > (select min(edge_at) from edges)
        window so_far as (partition by {{ keys }} order by known_at range unbounded preceding)

    ),

    at_edges as (

        select
            {% for key in by %}edges.{{ key }}, {% endfor %}edges.as_of,
            edges.edge
            {%- for name in measures %},
            coalesce(running.{{ name }}, 0) as {{ name }}
            {%- endfor %}
        from edges
        asof left join running
            on {% for key in by %}edges.{{ key }} = running.{{ key }} and {% endfor %}edges.edge_at >= running.known_at

    ),

    by_running_sums as (

        select
            {{ keys }},
            as_of
            {%- for window in windows %}
            {%- for name in measures %},
            max({{ name }}) filter (where edge = '') - max({{ name }}) filter (where edge = '{{ window }}')
                as {{ name }}_{{ window }}
            {%- endfor %}
            {%- endfor %}
        from at_edges
        group by {{ keys }}, as_of

    )

    select * from by_range
    union all by name
    select * from by_running_sums
{%- endmacro -%}
