-- Labels that became known in the window of this build: as_of + horizon lies in it. One row per feature row; the label
-- is 1 if the customer ordered in [as_of, as_of + horizon).
{{ config(materialized="incremental", pre_hook="{{ replace_window('known_at') }}") }}

with maturing as (

    select
        user_id,
        as_of,
        as_of + {{ horizon() }} as known_at
    from {{ ref('repurchase_features') }}
    where
        not restated
        and {{ in_window('as_of + ' ~ horizon()) }}

)

select
    user_id,
    as_of,
    known_at,
    exists(
        select 1
        from {{ ref('int_customer_days') }} as days
        where
            days.user_id = maturing.user_id
            and days.order_date >= maturing.as_of
            and days.order_date < maturing.known_at
    ) as label
from maturing
