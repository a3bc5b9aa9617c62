//! The provider: one address, asked over HTTP, and what its refusals mean for whoever has asked.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use kernel::{Code, Error, Result};
use reqwest::{Client, Response, redirect};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::asking::Asking;
use crate::cover::Cover;
use crate::{ModelConfig, Patience};

/// How often it is asked again.
const AGAIN: u32 = 2;

/// How long it is left alone before that, where it does not say; twice as long the second time.
const ALONE: Duration = Duration::from_millis(500);

/// When whoever asks may ask again by themselves, where a provider that has failed does not say.
const SOON: Duration = Duration::from_secs(1);

/// How much of a refusal is read.
const REFUSAL: usize = 64 << 10;

const EVENTS: &str = "text/event-stream";

/// Where a model is.
pub(crate) struct Provider {
    pub name: String,
    pub cover: Cover,
    pub patience: Patience,
    /// What its template adds to messages, in tokens.
    pub template: u64,
    client: Client,
    url: Url,
    proof: Option<HeaderValue>,
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// It has not worked.
    Refused(Error),
    /// It may have.
    Lost(Error),
}

impl Provider {
    pub fn new(config: ModelConfig) -> Result<Self> {
        let ModelConfig { base_url, name, api_key, template, patience } = config;
        let proof = api_key.as_ref().map(|key| {
            let proof = HeaderValue::try_from(format!("Bearer {}", key.expose()));
            let mut proof = proof.map_err(|_| {
                Error::new(Code::InvalidInput, "model.api_key has characters that no key has")
                    .hint("copy it again from the provider, without a line's end")
            })?;
            proof.set_sensitive(true);
            Ok::<_, Error>(proof)
        });
        let mut url = base_url.clone();
        url.set_path(&format!("{}/chat/completions", base_url.path().trim_end_matches('/')));
        // Whoever came first has installed the same one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .tcp_nodelay(true)
            .connect_timeout(patience.connect)
            .user_agent("steading")
            .build()
            .map_err(Error::internal)?;
        let cover = Cover::new(api_key.as_ref(), &base_url);
        Ok(Self { name, cover, patience, template, client, url, proof: proof.transpose()? })
    }

    /// The field that bounds an answer, where a request has none: those who have made another one take no more the one that all
    /// others know.
    pub fn bound(&self) -> &'static str {
        let host = self.url.host_str().unwrap_or_default();
        let newer = host == "api.openai.com" || host.ends_with(".openai.azure.com");
        if newer { "max_completion_tokens" } else { "max_tokens" }
    }

    /// Asks until it answers, or has refused for good.
    pub async fn ask(&self, asking: &Asking) -> Result<Response, Failure> {
        let mut tries = 0;
        loop {
            let refused = match self.once(asking).await? {
                Ok(response) => return self.good(asking, response),
                Err(refused) => refused,
            };
            let wait = refused.again.unwrap_or(ALONE * 2_u32.pow(tries));
            // What may have worked is to be paid, and so is what is asked then.
            let asked_again = refused.passes && !refused.worked;
            if tries == AGAIN || !asked_again || wait > self.patience.again {
                return Err(match refused.worked {
                    true => Failure::Lost(refused.error),
                    false => Failure::Refused(refused.error),
                });
            }
            tries += 1;
            sleep(wait).await;
        }
    }

    /// Asks once: an answer, or a refusal that may be another one the next time.
    async fn once(&self, asking: &Asking) -> Result<Result<Response, Refused>, Failure> {
        let accepted = if asking.stream { EVENTS } else { "application/json" };
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, accepted)
            .body(asking.body.clone());
        let request = match &self.proof {
            Some(proof) => request.header(AUTHORIZATION, proof.clone()),
            None => request,
        };
        let response = match timeout(self.patience.answer, request.send()).await {
            Err(_) => return Err(Failure::Lost(slow())),
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => {
                tracing::warn!(error = %error.without_url(), "the model's provider cannot be reached");
                let error = Error::new(Code::Unavailable, "the model cannot be reached");
                let error =
                    error.hint("try again in a moment; the platform's operator checks model.base_url");
                return Ok(Err(Refused { error, passes: true, worked: false, again: None }));
            }
            Ok(Err(_)) => {
                return Ok(Err(Refused {
                    error: broken("it ended without an answer").retry_after(SOON),
                    passes: true,
                    worked: true,
                    again: None,
                }));
            }
        };
        if response.status() == StatusCode::OK {
            return Ok(Ok(response));
        }
        Ok(Err(self.refused(response).await))
    }

    /// Events where they are wanted. What else it may be is looked at when it is read.
    fn good(&self, asking: &Asking, response: Response) -> Result<Response, Failure> {
        let kind =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if asking.stream && !kind.trim_start().to_ascii_lowercase().starts_with(EVENTS) {
            return Err(Failure::Lost(broken("its answer is no stream of events")));
        }
        Ok(response)
    }

    async fn refused(&self, response: Response) -> Refused {
        let (status, again) = (response.status(), again(response.headers()));
        let said = self.said(response).await;
        tracing::warn!(status = status.as_u16(), said, "the model's provider has refused a request");
        let operators = |what: &str, hint: &str| Error::new(Code::Unavailable, what).hint(hint);
        let error = match status.as_u16() {
            400 | 422 => {
                let said = if said.is_empty() { "it does not say why" } else { &said };
                Error::invalid("", format!("the model does not take this request: {said}"))
                    .hint("change the request as it says")
            }
            401 | 403 => operators(
                "the model's provider does not let the platform in",
                "the platform's operator checks model.api_key",
            ),
            402 => operators(
                "the model's provider wants to be paid",
                "the platform's operator looks at the account there",
            ),
            404 => operators(
                "the model's provider has no such model",
                "the platform's operator checks model.base_url and model.name",
            ),
            408 | 504 => slow(),
            413 => Error::new(Code::TooLarge, "the request is larger than the model takes")
                .hint("send fewer messages, or shorter ones"),
            429 => {
                let error = Error::new(Code::RateLimited, "the model is asked too often");
                error.retry_after(again.unwrap_or(Duration::from_secs(5))).hint("ask again then")
            }
            status @ 500.. => broken(&format!("it answers with status {status}")).retry_after(SOON),
            status => broken(&format!("it answers with status {status}")),
        };
        let passes = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let error = match again {
            Some(again) if passes => error.retry_after(again),
            _ => error,
        };
        // What succeeds in another way than that of an answer may be paid, too.
        let worked = status.is_success()
            || status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE
            || status == StatusCode::REQUEST_TIMEOUT;
        Refused { error, passes, worked, again }
    }

    /// What a refusal says, as far as it can be shown.
    async fn said(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        while let Ok(Ok(Some(part))) = timeout(self.patience.again, response.chunk()).await {
            if body.len() + part.len() > REFUSAL {
                return String::new();
            }
            body.extend_from_slice(&part);
        }
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let said = [&value["error"]["message"], &value["error"], &value["message"], &value["detail"]];
        said.into_iter().find_map(Value::as_str).map(|said| self.cover.message(said)).unwrap_or_default()
    }
}

/// A refusal.
struct Refused {
    error: Error,
    /// Whether it may be another one soon.
    passes: bool,
    /// Whether it may have worked on the request nonetheless, which is to be paid then.
    worked: bool,
    /// When, as the provider says.
    again: Option<Duration>,
}

/// When a provider wants to be asked again.
fn again(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(millis));
    }
    let said = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = said.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(said).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// That a provider takes too long.
pub(crate) fn slow() -> Error {
    Error::new(Code::Timeout, "the model does not answer in time")
        .hint("ask for less with max_tokens, or again")
}

/// That a provider does not do what it should.
pub(crate) fn broken(what: &str) -> Error {
    Error::broken_upstream(format!("the model does not answer as it should: {what}"))
        .hint("try again in a moment")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_ask_again_is_read_in_every_form() {
        let said = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            again(&headers)
        };
        assert_eq!(said("retry-after", "3"), Some(Duration::from_secs(3)));
        assert_eq!(said("retry-after-ms", "40"), Some(Duration::from_millis(40)));
        assert_eq!(said("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(said("retry-after", "soon"), None);
        assert_eq!(said("x", "1"), None);
    }
}
