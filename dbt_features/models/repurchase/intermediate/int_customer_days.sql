-- Orders of one customer on one day are one purchase: the source writes one row per basket part.
select
    user_id,
    order_date,
    cast(sum(cds) as bigint) as cds,
    sum(amount_usd) as usd,
    max(available_at) as available_at
from {{ ref('stg_orders') }}
group by user_id, order_date
