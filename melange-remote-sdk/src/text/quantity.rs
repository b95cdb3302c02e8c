//! Quantities in the units of Kubernetes: `8Gi`, `500M`, `2`, `1500m`.

/// The endings of quantities with what they stand for, in thousandths.
const UNITS: [(&str, u128); 13] = [
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
    ("k", 1_000_000),
    ("K", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("m", 1),
    ("", 1_000),
];

/// Digits of a quantity on either side of its point.
const DIGITS_MAX: usize = 15;

/// Bytes as people read them: `8.0 GiB`.
pub fn gibibytes(bytes: u64) -> String {
    format!("{}.{} GiB", bytes >> 30, ((bytes & ((1 << 30) - 1)) * 10) >> 30)
}

/// Reads a quantity, in thousandths: `Some(None)` for an empty text, `None` for one that is no positive quantity.
pub fn quantity(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() > DIGITS_MAX || part.len() > DIGITS_MAX || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let digits = format!("{whole}{part}");
    let scale = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let value = digits.parse::<u128>().ok()?.checked_mul(*factor)? / scale;
    u64::try_from(value).ok().filter(|value| *value > 0).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        for (text, expected) in [
            ("", Some(None)),
            ("2", Some(Some(2_000))),
            ("1500m", Some(Some(1_500))),
            ("0.5", Some(Some(500))),
            (".5", Some(Some(500))),
            ("8Gi", Some(Some(1_000 * (8 << 30)))),
            ("1.5G", Some(Some(1_500_000_000_000))),
            ("100k", Some(Some(100_000_000))),
            ("0", None),
            ("-1", None),
            ("much", None),
            ("8GiB", None),
            ("1.2.3", None),
            (".", None),
            ("99999999999999999999", None),
            ("999999999999999Pi", None),
        ] {
            assert_eq!(quantity(text), expected, "{text:?}");
        }
    }
}
