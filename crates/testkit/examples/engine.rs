//! An engine to try things on: `postgres` prints its process id and address, `chromium` its process id and its
//! profile. It ends with its standard input.

use std::io::{Read, Write};

use anyhow::bail;
use testkit::{Chromium, Fsync, Postgres};

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("postgres") => {
            let postgres = Postgres::start(Fsync::Off)?;
            hold(&format!("{} {}", postgres.id(), postgres.fresh_database()?))
        }
        Some("chromium") => {
            let chromium = Chromium::start()?;
            hold(&format!("{} {}", chromium.id(), chromium.profile().display()))
        }
        _ => bail!("which engine, postgres or chromium?"),
    }
}

fn hold(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
