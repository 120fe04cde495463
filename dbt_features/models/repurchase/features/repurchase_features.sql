-- One row per (user_id, as_of), for the one as_of that this build is about: the end of its period. Only orders strictly
-- before as_of count, so an order on the as_of day itself does not. Money is exact until the last step.
with known as (

    select
        user_id,
        order_date,
        cds,
        usd
    from {{ ref('int_customer_days') }}
    where order_date < {{ as_of() }}

),

totals as (

    select
        user_id,
        {{ as_of() }} as as_of,
        min(order_date) as first_date,
        max(order_date) as last_date,
        count(*) as freq,
        count(*) filter (where order_date >= {{ as_of() }} - interval 30 days) as orders_30d,
        count(*) filter (where order_date >= {{ as_of() }} - interval 90 days) as orders_90d,
        count(*) filter (where order_date >= {{ as_of() }} - interval 180 days) as orders_180d,
        sum(usd) as usd_all,
        coalesce(sum(usd) filter (where order_date >= {{ as_of() }} - interval 90 days), 0) as usd_90d,
        cast(sum(cds) as bigint) as cds_all,
        arg_min(usd, order_date) as first_usd,
        arg_min(cds, order_date) as first_cds
    from known
    group by user_id

),

intervals as (

    select
        *,
        date_diff('day', last_date, as_of) as recency,
        date_diff('day', first_date, as_of) as tenure,
        cast(date_diff('day', first_date, last_date) as double) / nullif(freq - 1, 0) as mean_gap
    from totals

)

select
    user_id,
    as_of,
    cast(last_date as timestamp) as event_time,
    recency,
    tenure,
    freq,
    orders_30d,
    orders_90d,
    orders_180d,
    cast(usd_all as double) as usd_all,
    cast(usd_90d as double) as usd_90d,
    cast(usd_all as double) / freq as aov,
    cds_all,
    cast(first_usd as double) as first_usd,
    first_cds,
    mean_gap,
    recency / mean_gap as rec_ratio
from intervals
