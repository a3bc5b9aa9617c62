//! `steading ca`: shows what to trust so that browsers believe this installation's own certificates.

use capabilities::domains::LocalCa;
use kernel::{Code, Error};
use serde_json::json;

use super::{Context, Failure};

/// Show the certificate to trust for HTTPS without a public authority
#[derive(Debug, clap::Args)]
pub struct Ca {}

impl Ca {
    /// Runs it.
    #[expect(clippy::unused_async, reason = "every command has this shape")]
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let path = LocalCa::file(&context.config.data_dir);
        let pem = std::fs::read_to_string(&path).map_err(|error| {
            Error::new(Code::NotFound, format!("there is no certificate authority at {}", path.display()))
                .hint("it is made when the platform first serves HTTPS: set tls.listen")
                .source(error)
        })?;
        let path = std::path::absolute(&path).unwrap_or(path);
        let shown = path.display().to_string();
        context.output.result(&json!({ "path": shown, "pem": pem }), |_| {
            format!(
                "{pem}\nThis is {shown}. It counts for private names and this installation's own hosts alone. To trust it:\n\n  \
                 Debian, Ubuntu   sudo cp {shown} /usr/local/share/ca-certificates/steading.crt && sudo update-ca-certificates\n  \
                 Fedora           sudo trust anchor {shown}\n  \
                 Firefox, Chrome  import it as an authority, for websites\n  \
                 Node.js          NODE_EXTRA_CA_CERTS={shown}\n  \
                 curl             curl --cacert {shown} …\n"
            )
        });
        Ok(())
    }
}
