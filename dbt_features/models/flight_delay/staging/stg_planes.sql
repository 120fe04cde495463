-- One row per plane of the register, from the version that this build may know.
select
    tailnum as tail_number,
    year as built_year,
    seats,
    period,
    version,
    case when version > 1 then landed_at at time zone 'UTC' end as corrected_at
from {{ source('raw_flight_delay', 'planes') }}
where
    period <= strftime({{ period_end() }} - interval 1 microsecond, '%Y-%m-%d')
    and {{ in_force(source('raw_flight_delay', 'planes')) }}
