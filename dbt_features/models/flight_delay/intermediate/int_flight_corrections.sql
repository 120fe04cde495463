-- When the newest correction of a day's deliveries landed, and the days whose rows it can count in: nothing of a
-- corrected delivery was known before.
with corrected as (

    select
        cast(period as timestamp) as counts_from,
        counts_from + interval 28 days + {{ horizon() }} as counts_until,
        corrected_at
    from {{ ref('stg_flights') }}
    where version > 1
    union all
    select
        cast(period as timestamp) as counts_from,
        counts_from + interval 1 day as counts_until,
        corrected_at
    from {{ ref('stg_weather') }}
    where version > 1
    union all
    select
        cast(period as timestamp) as counts_from,
        cast('infinity' as timestamp) as counts_until,
        corrected_at
    from {{ ref('stg_planes') }}
    where version > 1

)

select
    counts_from,
    counts_until,
    max(corrected_at) as corrected_at
from corrected
group by counts_from, counts_until
