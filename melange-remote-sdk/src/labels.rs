//! Labels of backends and the selector that jobs ask with: every asked label must be there (AND).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// What a backend says about itself, such as `tier=high-memory`. Bounded, sorted by key; the order in which
/// labels are written never matters.
///
/// ```
/// use melange_remote_sdk::labels::{LabelSelector, Labels};
/// let labels = Labels::from_pairs([("tier", "standard"), ("disk", "ssd")]).unwrap();
/// let selector = LabelSelector::from_pairs([("disk", "ssd")]).unwrap();
/// assert!(selector.matches(&labels));
/// assert!(Labels::from_pairs([("a=b", "c")]).is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks a map of labels.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty or malformed key or value; `LimitExceeded` beyond
    /// [`limits::LABELS_MAX`].
    pub fn new(map: BTreeMap<String, String>) -> Result<Self> {
        if map.len() > limits::LABELS_MAX {
            let message = format!("{} labels, more than {}", map.len(), limits::LABELS_MAX);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        for (key, value) in &map {
            check_key(key)?;
            check_value(key, value)?;
        }
        Ok(Self(map))
    }

    /// Labels from pairs; a key given twice is refused.
    ///
    /// # Errors
    /// As [`Self::new`], and `InvalidRequest` for a key given twice.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let mut map = BTreeMap::new();
        for (key, value) in pairs {
            let key = key.into();
            if map.contains_key(&key) {
                return Err(Error::invalid(format!("the label {key:?} is given twice")));
            }
            map.insert(key, value.into());
        }
        Self::new(map)
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels as a map.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

fn check_key(key: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!("the label key {key:?} {why}"))
            .hint("a label is written key=value, such as tier=high-memory"))
    };
    if key.is_empty() {
        return refuse("is empty");
    }
    if key.len() > limits::LABEL_BYTES_MAX {
        return refuse("is too long");
    }
    if key.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '=' | ',')) {
        return refuse("holds a character that keys must not have");
    }
    Ok(())
}

fn check_value(key: &str, value: &str) -> Result<()> {
    if value.len() > limits::LABEL_BYTES_MAX {
        return Err(Error::invalid(format!("the value of the label {key:?} is too long")));
    }
    if value.contains(char::is_control) {
        return Err(Error::invalid(format!("the value of the label {key:?} holds a control character")));
    }
    Ok(())
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = Error;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self> {
        Self::new(map)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// `key=value` pairs joined by commas.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// The labels that a job asks for; a backend matches when it has all of them with the same values.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelSelector(Labels);

impl LabelSelector {
    /// A selector that asks for `labels`.
    pub fn new(labels: Labels) -> Self {
        Self(labels)
    }

    /// A selector from pairs.
    ///
    /// # Errors
    /// As [`Labels::from_pairs`].
    pub fn from_pairs<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        Labels::from_pairs(pairs).map(Self)
    }

    /// Whether `labels` have every asked label.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is asked.
    pub fn labels(&self) -> &Labels {
        &self.0
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_labels_are_refused() {
        for key in ["", "a b", "a=b", "a,b", "a\n"] {
            assert!(Labels::from_pairs([(key, "x")]).is_err(), "{key:?}");
        }
        assert!(Labels::from_pairs([("a", "x\ny")]).is_err());
        assert!(Labels::from_pairs([("a", "1"), ("a", "2")]).is_err());
        let many = (0..=limits::LABELS_MAX).map(|n| (n.to_string(), String::new()));
        assert_eq!(Labels::from_pairs(many).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    proptest! {
        #[test]
        fn order_never_matters(
            pairs in proptest::collection::btree_map("[a-c]", "[x-z]", 0..4),
            have in proptest::collection::btree_map("[a-c]", "[x-z]", 0..4),
        ) {
            let reversed = LabelSelector::from_pairs(pairs.clone().into_iter().rev()).unwrap();
            let selector = LabelSelector::from_pairs(pairs.clone()).unwrap();
            let labels = Labels::new(have.clone()).unwrap();
            prop_assert_eq!(&selector, &reversed);
            prop_assert_eq!(selector.matches(&labels), pairs.iter().all(|pair| have.get(pair.0) == Some(pair.1)));
        }
    }
}
