{#- Tests over several columns of a table in one query: a dbt node costs about 40 ms, a column in one nothing. -#}

{% test unique_combination(model, columns) %}
select {{ columns | join(', ') }}, count(*) as found
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}

{% test never_null(model, columns) %}
{% for column in columns %}
select '{{ column }}' as column_name from {{ model }} where {{ column }} is null
{% if not loop.last %} union all {% endif %}
{% endfor %}
{% endtest %}

{#- `ranges`: column -> [minimum, maximum], both inclusive, maximum may be left out. Nulls are in range. -#}
{% test in_range(model, ranges) %}
{% for column, range in ranges.items() %}
select '{{ column }}' as column_name, cast({{ column }} as double) as found
from {{ model }}
where {{ column }} < {{ range[0] }} {% if range | length > 1 %} or {{ column }} > {{ range[1] }} {% endif %}
{% if not loop.last %} union all {% endif %}
{% endfor %}
{% endtest %}

{% test rows_exist_in(model, to, columns) %}
select {{ columns | join(', ') }}
from {{ model }}
except
select {{ columns | join(', ') }}
from {{ to }}
{% endtest %}
