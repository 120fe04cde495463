-- One row per (user_id, as_of), for every end of a month in the window of this build. Only orders strictly before as_of
-- count, so an order on the as_of day itself does not. Money is exact until the last step.
{{ config(materialized="incremental", pre_hook="{{ replace_window('as_of', restated()) }}") }}

with moments as (

    select {{ period_ends('month') }} as as_of

),

totals as (

    select
        days.user_id,
        moments.as_of,
        min(days.order_date) as first_date,
        max(days.order_date) as last_date,
        max(days.available_at) as available_at,
        count(*) as freq,
        count(*) filter (where days.order_date >= moments.as_of - interval 30 days) as orders_30d,
        count(*) filter (where days.order_date >= moments.as_of - interval 90 days) as orders_90d,
        count(*) filter (where days.order_date >= moments.as_of - interval 180 days) as orders_180d,
        sum(days.usd) as usd_all,
        coalesce(sum(days.usd) filter (where days.order_date >= moments.as_of - interval 90 days), 0) as usd_90d,
        cast(sum(days.cds) as bigint) as cds_all,
        arg_min(days.usd, days.order_date) as first_usd,
        arg_min(days.cds, days.order_date) as first_cds
    from moments
    inner join {{ ref('int_customer_days') }} as days on moments.as_of > days.order_date
    group by days.user_id, moments.as_of

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
    available_at,
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
    recency / mean_gap as rec_ratio,
    {{ restated() }} as restated
from intervals
