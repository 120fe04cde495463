-- One row per order, from the newest version of each landed period. By default everything landed so far counts: a
-- correction of an old period is used by every build after it. With known_at, only what had landed by then counts.
with landed as (

    select *
    from {{ source('raw', 'orders') }}
    where available_at <= {{ known_at() }}

)

select
    customer_id as user_id,
    order_date,
    cds,
    amount_usd,
    period,
    version,
    available_at
from landed
qualify version = max(version) over (partition by period)
