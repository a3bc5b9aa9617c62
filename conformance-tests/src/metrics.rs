//! What the platform counts, read as strictly as Prometheus' text format is written (version 0.0.4).

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use testkit::Client;
use testkit::http::Response;

/// A page of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The page as it came.
    pub text: String,
    /// The families with their types.
    pub families: BTreeMap<String, String>,
    /// The values of series, by how they are written: `name{label="value"}`, labels by their names.
    pub series: BTreeMap<String, f64>,
}

/// The ends of the names that a histogram's series have.
const OF_HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];

impl Metrics {
    /// Reads the platform's, as whoever `client` is.
    ///
    /// # Errors
    /// Where it is refused, or not written as it has to be.
    pub fn of(client: &Client) -> anyhow::Result<Self> {
        Self::read(&client.request("GET", "/metrics").send()?)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// As [`Metrics::of`].
    pub fn read(answer: &Response) -> anyhow::Result<Self> {
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text()?);
        let kind = answer.header("content-type").unwrap_or_default();
        ensure!(kind == "text/plain; version=0.0.4", "{kind}");
        let text = answer.text()?.to_owned();
        ensure!(text.ends_with('\n'), "the last line has no end");
        let (mut families, mut series) = (BTreeMap::new(), BTreeMap::new());
        let (mut helped, mut family) = (None, String::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').context("no help")?;
                ensure!(!help.is_empty(), "{line}");
                helped = Some(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').context("no type")?;
                ensure!(helped.take().as_deref() == Some(name), "a type without its help before it: {line}");
                ensure!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                ensure!((kind == "counter") == name.ends_with("_total"), "a counter is called so: {line}");
                family = name.to_owned();
                let known = families.insert(family.clone(), kind.to_owned());
                ensure!(known.is_none(), "{name} is there twice");
            } else {
                let (name, labels, value) = sample(line).with_context(|| line.to_owned())?;
                let is_histogram = families.get(&family).is_some_and(|kind| kind == "histogram");
                let end = name.strip_prefix(family.as_str()).context("a series outside of its family")?;
                ensure!(if is_histogram { OF_HISTOGRAM.contains(&end) } else { end.is_empty() }, "{line}");
                let known = series.insert(written(&name, &labels), value);
                ensure!(known.is_none(), "twice: {line}");
            }
        }
        ensure!(helped.is_none(), "help without a type");
        let metrics = Self { text, families, series };
        metrics.check_histograms()?;
        Ok(metrics)
    }

    /// The value of a series, 0 where it is not there yet.
    #[must_use]
    pub fn get(&self, series: &str) -> f64 {
        self.series.get(series).copied().unwrap_or_default()
    }

    /// The counters and histograms that have grown since `before`, with how much; without seconds, which nobody knows
    /// beforehand.
    #[must_use]
    pub fn grown_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let counts = self.series.iter().filter(|(series, _)| {
            let name = series.split('{').next().unwrap_or_default();
            name.ends_with("_total") && !name.contains("seconds") || name.ends_with("_count")
        });
        let grown = counts.map(|(series, value)| (series.clone(), value - before.get(series)));
        grown.filter(|(_, more)| *more != 0.0).collect()
    }

    /// That buckets hold one another, and the last one all.
    fn check_histograms(&self) -> anyhow::Result<()> {
        for (name, _) in self.families.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut groups: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for (series, value) in &self.series {
                let Some(labels) = series.strip_prefix(&format!("{name}_bucket")) else { continue };
                let (before, rest) = labels.split_once("le=\"").context("a bucket without its end")?;
                let (end, after) = rest.split_once('"').context("no end")?;
                let end = if end == "+Inf" { f64::INFINITY } else { end.parse()? };
                let others =
                    format!("{before}{after}").replace(",}", "}").replace("{,", "{").replace("{}", "");
                groups.entry(others).or_default().push((end, *value));
            }
            ensure!(!groups.is_empty(), "{name} has no buckets");
            for (labels, mut buckets) in groups {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                ensure!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}{labels}: {buckets:?}");
                let last = buckets.last().context("no bucket")?;
                let count = self.series.get(&format!("{name}_count{labels}"));
                ensure!(
                    last.0.is_infinite() && Some(&last.1) == count,
                    "{name}{labels}: {last:?}, {count:?}"
                );
                ensure!(
                    self.series.contains_key(&format!("{name}_sum{labels}")),
                    "{name}{labels} has no sum"
                );
            }
        }
        Ok(())
    }
}

/// Name, labels and value of a line.
fn sample(line: &str) -> anyhow::Result<(String, BTreeMap<String, String>, f64)> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(end);
    ensure!(is_name(name), "{name:?} is no name");
    let mut labels = BTreeMap::new();
    let value = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            if let Some(rest) = rest.strip_prefix('}') {
                break rest;
            }
            let (label, after) = rest.split_once("=\"").context("no label")?;
            ensure!(is_name(label), "{label:?} is no label");
            // Nothing that labels say here has to be escaped.
            let (value, after) = after.split_once('"').context("no end of a value")?;
            ensure!(!value.contains('\\'), "{value:?} has to be escaped");
            if labels.insert(label.to_owned(), value.to_owned()).is_some() {
                bail!("{label} is there twice");
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        },
    };
    let value = value.strip_prefix(' ').context("no space before the value")?;
    Ok((name.to_owned(), labels, value.parse()?))
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    bytes.next().is_some_and(letter) && bytes.all(|byte| letter(byte) || byte.is_ascii_digit())
}

fn written(name: &str, labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    format!("{name}{{{}}}", labels.join(","))
}
