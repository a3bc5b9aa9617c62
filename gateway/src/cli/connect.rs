//! stub
use super::{Context, Failure};
/// Print or write the MCP settings of a client
#[derive(Debug, clap::Args)]
pub struct Connect {}
impl Connect {
    pub async fn run(self, _c: Context) -> Result<(), Failure> {
        Ok(())
    }
}
