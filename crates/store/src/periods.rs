//! Days and months of the calendar, in UTC: when they begin and when the next ones do.

use std::fmt;
use std::str::FromStr;

use kernel::Timestamp;

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// How long a budget lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// A calendar day in UTC.
    Day,
    /// A calendar month in UTC.
    Month,
}

impl Period {
    /// Every one.
    pub const ALL: [Period; 2] = [Period::Day, Period::Month];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Month => "month",
        }
    }

    /// When the one begins that `at` is in.
    #[must_use]
    pub const fn begins(self, at: Timestamp) -> Timestamp {
        let day = at.as_micros().div_euclid(DAY_US);
        match self {
            Period::Day => of_day(day),
            Period::Month => {
                let (year, month) = month_of(day);
                of_day(first_of(year, month))
            }
        }
    }

    /// When the next one begins.
    #[must_use]
    pub const fn ends(self, at: Timestamp) -> Timestamp {
        let day = at.as_micros().div_euclid(DAY_US);
        match self {
            Period::Day => of_day(day + 1),
            Period::Month => match month_of(day) {
                (year, 12) => of_day(first_of(year + 1, 1)),
                (year, month) => of_day(first_of(year, month + 1)),
            },
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no period, or no unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such {0}")]
pub struct Unknown(pub(crate) &'static str);

impl FromStr for Period {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|it| it.as_str() == text).ok_or(Unknown("period"))
    }
}

const fn of_day(day: i64) -> Timestamp {
    Timestamp::from_micros(day.saturating_mul(DAY_US))
}

/// The year and the month of a day since 1970, by counting in years that begin in March, so that a leap day is their last.
const fn month_of(day: i64) -> (i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + (month <= 2) as i64, month)
}

/// The first day of a month, since 1970.
const fn first_of(year: i64, month: i64) -> i64 {
    let (year, from_march) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * from_march + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_begin_at_midnight_in_utc_and_follow_each_other() {
        for (at, day, next_day, month, next_month) in [
            ("2026-11-30T23:59:59.999999Z", "2026-11-30", "2026-12-01", "2026-11-01", "2026-12-01"),
            ("2026-12-01T00:00:00Z", "2026-12-01", "2026-12-02", "2026-12-01", "2027-01-01"),
            ("2027-01-01T01:30:00+02:00", "2026-12-31", "2027-01-01", "2026-12-01", "2027-01-01"),
            ("2028-02-29T12:00:00Z", "2028-02-29", "2028-03-01", "2028-02-01", "2028-03-01"),
            ("2100-02-28T23:00:00Z", "2100-02-28", "2100-03-01", "2100-02-01", "2100-03-01"),
            ("1969-12-31T23:00:00Z", "1969-12-31", "1970-01-01", "1969-12-01", "1970-01-01"),
        ] {
            let begin = |date: &str| Timestamp::parse(&format!("{date}T00:00:00Z")).unwrap();
            let at = Timestamp::parse(at).unwrap();
            assert_eq!((Period::Day.begins(at), Period::Day.ends(at)), (begin(day), begin(next_day)), "{at}");
            assert_eq!(
                (Period::Month.begins(at), Period::Month.ends(at)),
                (begin(month), begin(next_month)),
                "{at}"
            );
        }
    }

    #[test]
    fn four_centuries_of_months_have_no_gap() {
        let mut at = Timestamp::parse("1900-01-01T00:00:00Z").unwrap();
        for _ in 0..4_800 {
            let next = Period::Month.ends(at);
            assert_eq!(Period::Month.begins(Timestamp::from_micros(next.as_micros() - 1)), at);
            assert_eq!(Period::Month.begins(next), next);
            at = next;
        }
        assert_eq!(at, Timestamp::parse("2300-01-01T00:00:00Z").unwrap());
    }
}
