//! `steading mcp`: the MCP door over stdio, for clients that start their servers themselves.

use tool::Selection;

use super::client::Client;
use super::{Context, Failure};

/// Serve MCP on stdin and stdout
#[derive(Debug, clap::Args)]
pub struct Mcp {
    /// Narrow the tools
    #[arg(long, value_enum, value_name = "SELECTION", default_value_t = Tools::Full)]
    tools: Tools,
}

/// How much of its tools a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tools {
    /// Only tools that change nothing
    Readonly,
    /// All but those that take something away
    Safe,
    /// Whatever the key allows
    Full,
}

impl Tools {
    /// The name on the command line and in addresses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tools::Readonly => "readonly",
            Tools::Safe => "safe",
            Tools::Full => "full",
        }
    }
}

impl Mcp {
    /// Runs it until stdin ends.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect(&context).await?;
        // A platform that does not answer (yet) is told to the MCP client, in answer to its requests.
        drop(client.settle_env().await);
        let selection = match self.tools {
            Tools::Readonly => Selection::ReadOnly,
            Tools::Safe => Selection::Safe,
            Tools::Full => Selection::Full,
        };
        let (base, key, env) = client.target();
        let outcome = tokio::select! {
            outcome = mcp_server::stdio::forward(base, key, env, selection) => outcome,
            () = super::serve::stop_signal()? => Ok(()),
        };
        client.close().await;
        Ok(outcome?)
    }
}
