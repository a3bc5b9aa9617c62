//! What is read when somebody asks, and the text that is made of all of it.

use prometheus::{CounterVec, GaugeVec, Opts, Registry, Result, TextEncoder};

use super::catalogue::{Kind, Metric};

/// Values of one moment.
#[derive(Default)]
pub struct Sheet(Registry);

impl Sheet {
    /// Writes down a metric without labels.
    ///
    /// # Errors
    /// Where it is there already.
    pub fn one(&self, metric: &Metric, value: f64) -> Result<()> {
        self.family(metric, &[([].as_slice(), value)])
    }

    /// Writes down a metric with one label, by what that says.
    ///
    /// # Errors
    /// As [`Sheet::one`].
    pub fn by(&self, metric: &Metric, values: &[(&str, f64)]) -> Result<()> {
        let values: Vec<_> = values.iter().map(|(label, value)| ([*label], *value)).collect();
        let values: Vec<_> = values.iter().map(|(label, value)| (label.as_slice(), *value)).collect();
        self.family(metric, &values)
    }

    fn family(&self, metric: &Metric, values: &[(&[&str], f64)]) -> Result<()> {
        let (opts, labels) = (Opts::new(metric.name, metric.about()), metric.label_names());
        match metric.kind {
            Kind::Gauge => {
                let family = GaugeVec::new(opts, &labels)?;
                for (labels, value) in values {
                    family.get_metric_with_label_values(labels)?.set(*value);
                }
                self.0.register(Box::new(family))
            }
            Kind::Counter => {
                let family = CounterVec::new(opts, &labels)?;
                for (labels, value) in values {
                    family.get_metric_with_label_values(labels)?.inc_by(*value);
                }
                self.0.register(Box::new(family))
            }
            // What is in buckets is counted while it happens.
            Kind::Histogram => Ok(()),
        }
    }

    /// It with what was counted, as text.
    ///
    /// # Errors
    /// Where a family is empty, or in both.
    pub fn text(&self, counted: &Registry) -> Result<String> {
        let mut families = counted.gather();
        families.extend(self.0.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}
