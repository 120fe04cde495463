-- One row per flight whose as_of lies in the window of this build. A departure counts from the moment on at which it
-- happens, an outcome from the first midnight on at which it is certain, weather from its hour on. Rates and means are
-- quotients of exact sums.
{{ config(materialized="incremental", pre_hook="{{ replace_window('as_of', restated()) }}") }}

with asked as (

    select
        *,
        -- A moment at midnight is the last of the day before.
        date_trunc('day', as_of - interval 1 microsecond) as day_began_at
    from {{ ref('stg_flights') }}
    where {{ in_window('as_of') }}

),

moments as (

    select distinct
        origin,
        as_of
    from asked

),

days as (

    select distinct
        carrier,
        flight_number,
        origin,
        destination,
        day_began_at as as_of
    from asked

),

departures as (

    select
        origin,
        departed_at,
        departed_at as available_at,
        1 as made,
        departure_delay_minutes as delay_minutes,
        cast(is_late as integer) as late
    from {{ ref('int_departures') }}

),

outcomes as (

    select
        carrier,
        flight_number,
        origin,
        destination,
        outcome_known_at as available_at,
        1 as known,
        cast(is_late as integer) as late
    from {{ ref('int_outcomes') }}

),

weather as (

    select
        *,
        observed_at as available_at
    from {{ ref('stg_weather') }}

),

backlog as (

    select
        *,
        changed_at as available_at
    from {{ ref('int_origin_backlog') }}

),

recent_departures as (

    {{ window_aggregates(
        'moments', 'departures', ['origin'],
        measures={'made': 'made', 'delay_minutes': 'delay_minutes', 'late': 'late'},
        windows={'1h': '1 hour', '3h': '3 hours'}
    ) }}

),

newest_departures as (

    {{ as_of_join('moments', 'departures', ['origin'], ['departed_at'], '3 hours', event_time='available_at') }}

),

waiting as (

    {{ as_of_join('moments', 'backlog', ['origin'], ['flights_waiting'], '6 hours', event_time='available_at') }}

),

newest_weather as (

    {{ as_of_join(
        'moments', 'weather', ['origin'],
        ['observed_at', 'humid', 'wind_speed', 'wind_gust', 'precip', 'visib'],
        '3 hours',
        event_time='available_at'
    ) }}

),

of_flight_number as (

    {{ window_aggregates(
        'days', 'outcomes', ['carrier', 'flight_number'], measures={'known': 'known', 'late': 'late'}, windows={'28d': '28 days'}
    ) }}

),

of_destination as (

    {{ window_aggregates(
        'days', 'outcomes', ['destination'], measures={'known': 'known', 'late': 'late'}, windows={'28d': '28 days'}
    ) }}

),

of_carrier as (

    {{ window_aggregates(
        'days', 'outcomes', ['carrier', 'origin'], measures={'known': 'known', 'late': 'late'}, windows={'28d': '28 days'}
    ) }}

),

corrections as (

    select
        asked_days.day_began_at,
        max(corrected.corrected_at) as newest_correction_at
    from (select distinct asked.day_began_at from asked) as asked_days
    inner join {{ ref('int_flight_corrections') }} as corrected
        on asked_days.day_began_at between corrected.counts_from and corrected.counts_until
    group by asked_days.day_began_at

),

known as (

    select
        asked.flight_id,
        asked.as_of,
        asked.origin,
        asked.departure_date,
        asked.minute_of_day,
        asked.sched_clock_minutes,
        asked.distance,
        planes.built_year,
        planes.seats,
        newest_weather.humid,
        newest_weather.wind_speed,
        newest_weather.wind_gust,
        newest_weather.precip,
        newest_weather.visib,
        recent_departures.made_1h,
        recent_departures.made_3h,
        recent_departures.delay_minutes_1h,
        recent_departures.delay_minutes_3h,
        recent_departures.late_3h,
        waiting.flights_waiting,
        of_flight_number.known_28d as flight_number_known,
        of_flight_number.late_28d as flight_number_late,
        of_destination.known_28d as destination_known,
        of_destination.late_28d as destination_late,
        of_carrier.known_28d as carrier_known,
        of_carrier.late_28d as carrier_late,
        greatest(
            newest_departures.departed_at,
            newest_weather.observed_at,
            -- The outcomes that count are settled when the day begins.
            case
                when of_flight_number.known_28d + of_destination.known_28d + of_carrier.known_28d > 0
                    then asked.day_began_at
            end
        ) as event_time,
        corrections.newest_correction_at
    from asked
    inner join recent_departures
        on asked.origin = recent_departures.origin and asked.as_of = recent_departures.as_of
    inner join newest_departures
        on asked.origin = newest_departures.origin and asked.as_of = newest_departures.as_of
    inner join waiting
        on asked.origin = waiting.origin and asked.as_of = waiting.as_of
    inner join newest_weather
        on asked.origin = newest_weather.origin and asked.as_of = newest_weather.as_of
    inner join of_flight_number
        on
            asked.carrier = of_flight_number.carrier
            and asked.flight_number = of_flight_number.flight_number
            and asked.day_began_at = of_flight_number.as_of
    inner join of_destination
        on asked.destination = of_destination.destination and asked.day_began_at = of_destination.as_of
    inner join of_carrier
        on
            asked.carrier = of_carrier.carrier
            and asked.origin = of_carrier.origin
            and asked.day_began_at = of_carrier.as_of
    left join {{ ref('stg_planes') }} as planes on asked.tail_number = planes.tail_number
    left join corrections on asked.day_began_at = corrections.day_began_at

)

select
    flight_id,
    as_of,
    event_time,
    greatest(event_time, newest_correction_at) as available_at,
    cast(origin = 'EWR' as bigint) as is_ewr,
    cast(origin = 'JFK' as bigint) as is_jfk,
    cast(origin = 'LGA' as bigint) as is_lga,
    isodow(departure_date) as day_of_week,
    minute_of_day,
    distance,
    sched_clock_minutes,
    cast(year(departure_date) - built_year as double) as plane_age,
    cast(seats as double) as seats,
    cast(flight_number_late + 1 as double) / (flight_number_known + 5) as flt28,
    cast(destination_late + 2 as double) / (destination_known + 10) as dest28,
    cast(carrier_late + 2 as double) / (carrier_known + 10) as co28,
    cast(made_3h as bigint) as dep_n3,
    cast(delay_minutes_3h as double) / nullif(made_3h, 0) as dep_mean3,
    cast(late_3h as double) / nullif(made_3h, 0) as dep_late3,
    cast(delay_minutes_1h as double) / nullif(made_1h, 0) as dep_mean1,
    coalesce(flights_waiting, 0) as backlog6,
    humid,
    wind_speed,
    wind_gust,
    precip,
    visib,
    {{ restated() }} as restated
from known
