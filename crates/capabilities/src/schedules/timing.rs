//! When a schedule's time comes.

use croner::Cron;
use croner::parser::CronParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp as Moment, Zoned};
use kernel::{Error, Result, Timestamp};

/// The longest text of a time, and of a time zone.
const LONGEST: usize = 200;

/// The least time between two runs, in seconds.
const LEAST: i64 = 5;

/// How many times are looked at to see whether they come too often: enough for the seconds of two minutes.
const LOOKED_AT: usize = 2 * (60 / LEAST as usize) + 2;

/// The times of a schedule.
#[derive(Debug, Clone)]
pub struct Timing {
    cron: Cron,
    zone: TimeZone,
    /// Whether it says in which years.
    has_years: bool,
}

impl Timing {
    /// Reads a time as cron writes it, in a time zone of IANA's.
    ///
    /// # Errors
    /// `invalid_input` at `/cron` or `/timezone`.
    pub fn read(cron: &str, timezone: Option<&str>) -> Result<Self> {
        let wrong = |why: String| {
            Error::invalid("/cron", why).hint(
                "write minute hour day month weekday, like \"30 3 * * *\", or seven fields with seconds before and \
                 the year behind, like \"0 30 3 * * * *\"",
            )
        };
        if cron.len() > LONGEST {
            return Err(wrong(format!("this has {} bytes; the limit is {LONGEST}", cron.len())));
        }
        let fields = cron.split_whitespace().count();
        let is_word = fields == 1 && cron.trim().starts_with('@');
        if !is_word && fields != 5 && fields != 7 {
            return Err(wrong(format!("{cron:?} has {fields} fields; a time has 5, or 7")));
        }
        let zone = timezone.map_or(Ok(TimeZone::UTC), zone)?;
        let parsed = CronParser::new().parse(cron).map_err(|e| wrong(format!("{cron:?}: {e}")))?;
        let has_years =
            fields == 7 && cron.split_whitespace().last().is_some_and(|years| !["*", "?"].contains(&years));
        let timing = Self { cron: parsed, zone, has_years };
        if fields == 7 && timing.comes_too_often() {
            let why = format!("{cron:?} comes more often than every {LEAST} seconds, which is the limit");
            return Err(Error::invalid("/cron", why).hint("begin it with */5, or with one second"));
        }
        Ok(timing)
    }

    /// The first time after `after`; none where there is none any more.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        timestamp(self.cron.find_next_occurrence(&self.zoned(after)?, false).ok()?)
    }

    /// The last time until `until`.
    #[must_use]
    pub fn last(&self, until: Timestamp) -> Option<Timestamp> {
        timestamp(self.cron.find_previous_occurrence(&self.zoned(until)?, true).ok()?)
    }

    /// Whether there is such a time, or it may have been in a year that has passed.
    pub(super) fn may_come(&self) -> bool {
        self.has_years || self.next(Timestamp::now()).is_some()
    }

    fn comes_too_often(&self) -> bool {
        let mut at = Timestamp::now();
        for i in 0..LOOKED_AT {
            let Some(next) = self.next(at) else { return false };
            if i > 0 && next.as_secs() - at.as_secs() < LEAST {
                return true;
            }
            at = next;
        }
        false
    }

    fn zoned(&self, at: Timestamp) -> Option<Zoned> {
        Some(Moment::from_microsecond(at.as_micros()).ok()?.to_zoned(self.zone.clone()))
    }
}

fn timestamp(at: Zoned) -> Option<Timestamp> {
    Some(Timestamp::from_micros(at.timestamp().as_microsecond()))
}

fn zone(name: &str) -> Result<TimeZone> {
    let known = (name.len() <= LONGEST).then(|| TimeZone::get(name).ok()).flatten();
    known.ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        Error::invalid("/timezone", format!("there is no time zone {shown:?}"))
            .hint("name one of IANA's, like Europe/Berlin, or leave it out for UTC")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    /// The next times after a moment.
    fn times(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let timing = Timing::read(cron, Some(zone)).unwrap();
        let mut last = at(after);
        let mut all = Vec::new();
        for _ in 0..count {
            last = timing.next(last).unwrap();
            all.push(last.to_string());
        }
        all
    }

    fn refusal(cron: &str, zone: Option<&str>) -> String {
        let error = Timing::read(cron, zone).unwrap_err();
        format!("{} {}", error.pointer().unwrap_or_default(), error.message())
    }

    #[test]
    fn five_fields_seven_fields_and_words_are_times() {
        let after = "2026-11-22T10:00:00Z";
        assert_eq!(times("30 3 * * *", "UTC", after, 1), ["2026-11-23T03:30:00Z"]);
        assert_eq!(times("30 3 * * *", "Asia/Shanghai", after, 1), ["2026-11-22T19:30:00Z"]);
        assert_eq!(
            times("*/20 30 3 * * * *", "UTC", after, 2),
            ["2026-11-23T03:30:00Z", "2026-11-23T03:30:20Z"]
        );
        assert_eq!(times("0 0 2 1 * ? 2027", "UTC", after, 1), ["2027-01-01T02:00:00Z"]);
        assert_eq!(times("0 9 * * MON-FRI", "UTC", after, 1), ["2026-11-23T09:00:00Z"]);
        assert_eq!(times("@daily", "UTC", after, 1), ["2026-11-23T00:00:00Z"]);
        assert_eq!(times("@hourly", "UTC", after, 1), ["2026-11-22T11:00:00Z"]);
        let last = Timing::read("0 * * * *", None).unwrap().last(at("2026-11-22T10:59:59Z")).unwrap();
        assert_eq!(last, at(after));
    }

    #[test]
    fn a_time_that_does_not_exist_comes_when_the_clock_has_gone_on() {
        // On 2027-03-28 Berlin goes from 02:00 to 03:00, at 01:00 UTC.
        let night = "2027-03-27T12:00:00Z";
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", night, 2),
            ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2027-03-28T00:29:00Z", 3),
            ["2027-03-28T00:30:00Z", "2027-03-28T01:00:00Z", "2027-03-28T01:30:00Z"]
        );
    }

    #[test]
    fn a_time_that_comes_twice_counts_once_where_it_is_a_fixed_one() {
        // On 2026-10-25 Berlin goes from 03:00 back to 02:00, at 01:00 UTC.
        let night = "2026-10-24T12:00:00Z";
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", night, 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            times("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
    }

    #[test]
    fn what_is_no_time_is_refused_at_its_field() {
        for (cron, zone, expected) in [
            ("* * * *", None, "/cron \"* * * *\" has 4 fields; a time has 5, or 7"),
            ("* * * * * *", None, "/cron \"* * * * * *\" has 6 fields; a time has 5, or 7"),
            ("", None, "/cron \"\" has 0 fields; a time has 5, or 7"),
            ("@reboot", None, "/cron"),
            ("61 * * * *", None, "/cron"),
            ("a b c d e", None, "/cron"),
            ("* * * * * * *", None, "/cron \"* * * * * * *\" comes more often than every 5 seconds"),
            ("0,58 * * * * * *", None, "/cron \"0,58 * * * * * *\" comes more often than every 5 seconds"),
            ("0 0 * * *", Some("Mars/Olympus"), "/timezone there is no time zone \"Mars/Olympus\""),
            ("0 0 * * *", Some("../../etc/passwd"), "/timezone"),
        ] {
            let refusal = refusal(cron, zone);
            assert!(refusal.starts_with(expected), "{refusal}");
        }
        assert!(refusal(&"1,".repeat(200), None).contains("the limit is 200"));
    }

    #[test]
    fn what_never_comes_is_told_from_what_has_been() {
        assert!(!Timing::read("0 0 30 2 *", None).unwrap().may_come());
        assert!(Timing::read("0 0 0 1 1 * 2020", None).unwrap().may_come(), "it has been");
        assert_eq!(Timing::read("0 0 0 1 1 * 2020", None).unwrap().next(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn times_that_are_hard_to_find_are_found_soon() {
        let begun = std::time::Instant::now();
        for cron in ["0 0 30 2 *", "0 0 29 2 1#5", "59 59 23 31 12 7#5 *", "0 0 0 30 2 * *", "0 0 31W 2 *"] {
            let _ = Timing::read(cron, Some("America/New_York")).map(|it| it.may_come());
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
