//! Which name was probably meant.

/// The name most like `written`; `None` when none is like it.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = written.to_lowercase();
    // A slip in a short name, two in a longer one.
    let most = if written.chars().count() < 5 { 1 } else { 2 };
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(&plain, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_and_other_words_are_not() {
        let fields = ["targetPort", "port", "name", "labels", "serviceAccountName", "host", "hosts", "spec"];
        for (written, meant) in [
            ("targetPrt", Some("targetPort")),
            ("targetport", Some("targetPort")),
            ("label", Some("labels")),
            ("labls", Some("labels")),
            ("serviceAcountName", Some("serviceAccountName")),
            ("hots", Some("host")),
            ("mtls", None),
            ("selector", None),
        ] {
            assert_eq!(nearest(written, fields), meant, "{written}");
        }
    }
}
