//! The estimate is held against the real tokenizer.

use proptest::prelude::*;

use super::estimate;

fn real(text: &str) -> usize {
    tiktoken_rs::o200k_base_singleton().encode_ordinary(text).len()
}

#[test]
fn typical_results_are_estimated_from_above_and_not_absurdly_so() {
    let rows = serde_json::json!({
        "columns": ["id", "title", "done"],
        "rows": [["019ab3c4d5e6f7a8b9c0d1e2f3a4b5c6", "Buy milk and bread", 0]],
        "at": "2026-11-21T08:30:00.123456Z",
    })
    .to_string();
    let unicode = "日本語のテキスト、그리고 한국어, привет мир 🎉🎉";
    for text in [rows.as_str(), unicode, "The quick brown fox jumps over the lazy dog.", ""] {
        let (estimated, real) = (estimate(text), real(text));
        assert!(estimated >= real, "{estimated} < {real}: {text}");
        assert!(estimated <= 3 * real + 3, "{estimated} ≫ {real}: {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_text_costs_much_more_than_estimated(text in r#"([a-z]{1,12}|[0-9]{1,9}|[ -~]|[{}",:\[\] \n]){0,200}"#) {
        prop_assert!(estimate(&text) * 10 + 40 >= real(&text) * 6, "{} < {}", estimate(&text), real(&text));
    }
}
