//! A user at the pages of the authorization server, and a client that asks for tokens, by plain HTTP.

use anyhow::{Context, ensure};
use serde_json::Value;
use testkit::http::{Request, Response};

/// What Claude Code calls itself by.
pub const CLAUDE_CODE: &str = "https://claude.ai/oauth/claude-code-client-metadata";

/// A user with a browser that keeps one cookie and runs nothing.
pub struct Visitor {
    base: String,
    /// The cookie, as it is sent.
    pub cookie: Option<String>,
}

impl Visitor {
    /// A user at the platform with this address.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned(), cookie: None }
    }

    /// Goes to a page, or to an address of the platform.
    ///
    /// # Errors
    /// Where there is no answer.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Response> {
        let path = path.strip_prefix(&self.base).unwrap_or(path);
        self.send(Request::get(&format!("{}{path}", self.base)))
    }

    /// Sends a form, as pages of the platform do.
    ///
    /// # Errors
    /// Where there is no answer.
    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Response> {
        let origin = self.base.clone();
        let request = form(&format!("{}{path}", self.base), fields).header("origin", &origin);
        self.send(request)
    }

    fn send(&mut self, mut request: Request) -> anyhow::Result<Response> {
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let response = request.send()?;
        if let Some(set) = response.header("set-cookie") {
            let cookie = set.split(';').next().unwrap_or_default();
            self.cookie = Some(cookie.to_owned()).filter(|cookie| !cookie.ends_with('='));
        }
        Ok(response)
    }

    /// Signs in with a key at the page that asks for it, and gives the page after it.
    ///
    /// # Errors
    /// Where another page comes.
    pub fn sign_in(&mut self, path: &str, key: &str) -> anyhow::Result<Response> {
        self.sign_in_as(path, &[("key", key)])
    }

    /// The same with what somebody else types there.
    ///
    /// # Errors
    /// Where another page comes.
    pub fn sign_in_as(&mut self, path: &str, who: &[(&str, &str)]) -> anyhow::Result<Response> {
        let page = self.get(path)?;
        let html = page.text()?.to_owned();
        let (tag, next) = (hidden(&html, "form")?, hidden(&html, "next")?);
        let fields: Vec<(&str, &str)> =
            [("form", &*tag), ("next", &*next)].into_iter().chain(who.iter().copied()).collect();
        let sent = self.post("/oauth/sign-in", &fields)?;
        ensure!(sent.status == 303, "{} {}", sent.status, sent.text()?);
        self.get(sent.header("location").context("no way on")?)
    }

    /// Decides at a page that asks, and gives what comes of it.
    ///
    /// # Errors
    /// Where it is no such page.
    pub fn decide(
        &mut self,
        page: &Response,
        answer: &str,
        env: Option<&str>,
        words: Option<&str>,
    ) -> anyhow::Result<Response> {
        let html = page.text()?.to_owned();
        let action = between(&html, "<form method=\"post\" action=\"", "\"").context("no form")?;
        let names = ["form", "request", "redirect", "user_code", "env"];
        let mut fields: Vec<(&str, String)> =
            names.iter().filter_map(|name| hidden(&html, name).ok().map(|value| (*name, value))).collect();
        if let Some(env) = env {
            fields.retain(|(name, _)| *name != "env");
            fields.push(("env", env.to_owned()));
        }
        match words {
            Some(words) => fields.extend(words.split(' ').map(|word| ("grant", word.to_owned()))),
            None => {
                let boxes = html.split("name=\"grant\" value=\"").skip(1);
                let ticked =
                    boxes.filter(|rest| rest.split('>').next().is_some_and(|tag| tag.contains(" checked")));
                let ticked = ticked.filter_map(|rest| rest.split('"').next());
                fields.extend(ticked.map(|word| ("grant", word.to_owned())));
            }
        }
        fields.push(("answer", answer.to_owned()));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.post(&action, &fields)
    }

    /// Lets a client act, from the address that it sends its user to, and gives the one that the user is sent back to.
    ///
    /// # Errors
    /// Where anything else comes.
    pub fn allow(&mut self, url: &str, key: &str, env: Option<&str>) -> anyhow::Result<String> {
        self.allow_as(url, &[("key", key)], env)
    }

    /// The same of whoever types something else.
    ///
    /// # Errors
    /// Where anything else comes.
    pub fn allow_as(&mut self, url: &str, who: &[(&str, &str)], env: Option<&str>) -> anyhow::Result<String> {
        let page = self.sign_in_as(url, who)?;
        ensure!(page.status == 200, "{} {}", page.status, page.text()?);
        let sent = self.decide(&page, "allow", env, None)?;
        ensure!(sent.status == 303, "{} {}", sent.status, sent.text()?);
        Ok(sent.header("location").context("no way back")?.to_owned())
    }
}

/// A request with a form.
pub fn form(url: &str, fields: &[(&str, &str)]) -> Request {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", crate::encoded(value))).collect();
    Request::post(url).header("content-type", "application/x-www-form-urlencoded").body(pairs.join("&"))
}

/// The value of a hidden field of a page.
///
/// # Errors
/// Where there is none.
pub fn hidden(html: &str, name: &str) -> anyhow::Result<String> {
    let begin = format!("<input type=\"hidden\" name=\"{name}\" value=\"");
    between(html, &begin, "\"").with_context(|| format!("no field {name} in {html}"))
}

/// A field of the query of an address.
#[must_use]
pub fn field(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(other, _)| *other == name)?;
    Some(decoded(found.1))
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let digit =
            |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).unwrap_or_default() as u8;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => bytes.push(digit(rest.next()) << 4 | digit(rest.next())),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn between(html: &str, begin: &str, end: &str) -> Option<String> {
    let value = html.split_once(begin)?.1.split_once(end)?.0;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(value.to_owned(), |text, (html, plain)| text.replace(html, plain)))
}

/// What the token endpoint answers.
///
/// # Errors
/// Where it is no JSON.
pub fn told(response: &Response) -> anyhow::Result<(u16, Value)> {
    Ok((response.status, response.json()?))
}
