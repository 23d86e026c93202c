//! Interval estimates and how they print.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The 97.5 % quantile of the standard normal distribution.
pub(super) const Z95: f64 = 1.959963984540054;

/// How an interval was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntervalMethod {
    /// Percentiles of the statistic over resamples with replacement (Efron 1979).
    Bootstrap,
    /// Central limit theorem on streaming moments.
    Normal,
    /// Wilson's score interval of a proportion (Wilson 1927).
    Wilson,
    /// Student's t on the values' own spread (Student 1908).
    Student,
}

/// An estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The statistic on the data.
    pub estimate: f64,
    /// Lower end; minus infinity (null in JSON) where the data bound nothing.
    #[serde(serialize_with = "write_end", deserialize_with = "read_low")]
    pub low: f64,
    /// Upper end; infinity (null in JSON) where the data bound nothing.
    #[serde(serialize_with = "write_end", deserialize_with = "read_high")]
    pub high: f64,
    /// Number of units (prompts, pairs) behind it.
    pub n: u64,
    /// How it was made.
    #[serde(rename = "interval")]
    pub method: IntervalMethod,
}

impl Interval {
    /// Whether the value lies inside: "not distinguishable from `value`".
    pub fn holds(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

impl std::fmt::Display for Interval {
    /// `0.712 [0.674, 0.750]`; the format's precision is used for all three (3 without one). `0.712 (no
    /// interval, n = 1)` where the data bound nothing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let p = f.precision().unwrap_or(3);
        if self.low == f64::NEG_INFINITY && self.high == f64::INFINITY {
            return write!(f, "{:.p$} (no interval, n = {})", self.estimate, self.n);
        }
        write!(f, "{:.p$} [{:.p$}, {:.p$}]", self.estimate, self.low, self.high)
    }
}

fn write_end<S: Serializer>(end: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    end.is_finite().then_some(*end).serialize(serializer)
}

fn read_low<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NEG_INFINITY))
}

fn read_high<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// Wilson's 95 % score interval of a proportion of independent trials:
/// (p + z^2/2n +- z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n) (Wilson 1927).
///
/// `successes` in 0..=n may count ties as 1/2. `None` for n = 0.
pub fn wilson(successes: f64, n: u64) -> Option<Interval> {
    if n == 0 {
        return None;
    }
    let total = n as f64;
    let p = successes / total;
    let z2 = Z95 * Z95 / total;
    let center = (p + z2 / 2.0) / (1.0 + z2);
    let half = Z95 * (p * (1.0 - p) / total + z2 / (4.0 * total)).sqrt() / (1.0 + z2);
    Some(Interval {
        estimate: p,
        low: (center - half).max(0.0),
        high: (center + half).min(1.0),
        n,
        method: IntervalMethod::Wilson,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_by_hand() {
        // 5 of 10: center 1/2, half = z sqrt(0.025 + z^2/400) / (1 + z^2/10), z^2 = 3.8414588:
        // sqrt(0.0346036) = 0.1860206; 1.959964 * 0.1860206 / 1.3841459 = 0.2634060.
        let interval = wilson(5.0, 10).unwrap();
        assert!((interval.low - 0.2365940).abs() < 1e-6, "{interval:?}");
        assert!((interval.high - 0.7634060).abs() < 1e-6);
        // 0 of 10 does not claim certainty: the upper end is z^2 / (n + z^2).
        let none = wilson(0.0, 10).unwrap();
        assert_eq!((none.estimate, none.low), (0.0, 0.0));
        assert!((none.high - 3.841458820694124 / 13.841458820694124).abs() < 1e-12);
        assert_eq!(wilson(0.0, 0), None);
    }

    #[test]
    fn unbounded_ends_are_null_in_json_and_come_back() {
        let interval = Interval {
            estimate: 1.5,
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            n: 1,
            method: IntervalMethod::Normal,
        };
        let text = serde_json::to_string(&interval).unwrap();
        assert_eq!(text, r#"{"estimate":1.5,"low":null,"high":null,"n":1,"interval":"normal"}"#);
        assert_eq!(serde_json::from_str::<Interval>(&text).unwrap(), interval);
        assert!(interval.holds(-1e9));
        assert_eq!(format!("{interval:.1}"), "1.5 (no interval, n = 1)");
    }
}
