-- One row per order, from the version of each landed period that this build may know (macros/landed.sql). An order is
-- known when its day is over; one that came with a correction, when that landed.
select
    customer_id as user_id,
    order_date,
    cds,
    amount_usd,
    period,
    version,
    greatest(
        cast(order_date + interval 1 day as timestamp),
        case when version > 1 then cast(landed_at as timestamp) end
    ) as available_at
from {{ source('raw_repurchase', 'orders') }}
where {{ in_force(source('raw_repurchase', 'orders')) }}
