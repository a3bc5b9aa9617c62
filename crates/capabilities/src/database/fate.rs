//! What becomes of the platform's own tables where an environment goes back in time, and where another is made of it.

/// What becomes of a table of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is part of the app's shape: it goes back, and goes along with the shape alone.
    Shape,
    /// It is the app's data: it goes back, and goes along with the data.
    Data,
    /// It is of users, whose id is in this column: of those who are there at both moments it stays as it is now, for it says
    /// who is let in and as what; with the others it goes and comes. It goes along with the data.
    People(&'static str),
    /// It belongs to rows in this very place: it goes back with them, and never along.
    Here,
    /// It says who is let in at this moment: it neither goes back nor goes along.
    Now,
    /// It is of no use in another place or at another time: it is emptied.
    Passing,
}

/// Every table of ours, and those that come with other parts of the platform.
const FATES: &[(&str, Fate)] = &[
    ("_steading_code", Fate::Passing),
    // What was not told of yet is not told of anywhere else.
    ("_steading_event", Fate::Passing),
    ("_steading_identity", Fate::People("user")),
    ("_steading_mail", Fate::Passing),
    ("_steading_migration", Fate::Shape),
    // Says which tokens were used, among the rest: none of them is good again.
    ("_steading_oauth", Fate::Now),
    ("_steading_object", Fate::Data),
    ("_steading_passkey", Fate::People("user")),
    ("_steading_plan", Fate::Passing),
    ("_steading_recovery", Fate::People("user")),
    ("_steading_release", Fate::Shape),
    ("_steading_reply", Fate::Here),
    ("_steading_session", Fate::Now),
    ("_steading_state", Fate::Shape),
    ("_steading_ticket", Fate::Passing),
    ("_steading_totp", Fate::People("user")),
    ("_steading_upload", Fate::Passing),
    ("_steading_user", Fate::People("id")),
];

/// The tables of users, each with the column that holds the user's id.
pub(crate) fn people() -> impl Iterator<Item = (&'static str, &'static str)> {
    FATES.iter().filter_map(|(table, fate)| match fate {
        Fate::People(column) => Some((*table, *column)),
        _ => None,
    })
}

/// The tables that say who is let in at this moment.
pub(crate) fn of_now() -> impl Iterator<Item = &'static str> {
    FATES.iter().filter(|(_, fate)| *fate == Fate::Now).map(|(table, _)| *table)
}

/// The fate of a table; what is not known is emptied: what is missing is seen, what comes alive again is not.
pub(crate) fn fate(table: &str) -> Fate {
    FATES.iter().find(|(name, _)| *name == table).map_or(Fate::Passing, |(_, fate)| *fate)
}

#[cfg(test)]
mod tests {
    use super::FATES;
    use crate::database::template::TABLES;

    #[test]
    fn every_table_of_ours_has_a_fate() {
        for (name, sql) in TABLES {
            let is_table = sql.starts_with("CREATE TABLE");
            let known = FATES.iter().any(|(known, _)| *known == name);
            assert!(known || !is_table, "say in database/fate.rs what becomes of {name}");
        }
    }
}
