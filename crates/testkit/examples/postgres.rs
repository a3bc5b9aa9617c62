//! A Postgres to try things on: prints its process id and address, and ends with its standard input.

use std::io::{Read, Write};

use testkit::{Fsync, Postgres};

fn main() -> anyhow::Result<()> {
    let postgres = Postgres::start(Fsync::Off)?;
    let mut out = std::io::stdout();
    writeln!(out, "{} {}", postgres.id(), postgres.fresh_database()?)?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
