//! A rule, checked once and ready to be followed.

use std::sync::Arc;

use super::edit::Edit;
use super::weighted::pick;
use super::{Backend, Cors, Filter, Mirror, Redirect, Rewrite, Rule, path_edit};

/// A rule whose filters are ready. What cannot be followed is kept as the reason why: the rule then answers 500, and no weaker
/// rule is followed in its place.
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) rule: Rule,
    pub(super) filters: Result<Filters, String>,
    /// Of the rule's backends, in their order.
    pub(super) backends: Vec<Result<Filters, String>>,
    /// What of its matches does not compile.
    pub(super) broken: Option<String>,
}

/// What a list of filters does.
#[derive(Debug, Default)]
pub(super) struct Filters {
    pub(super) request: Vec<Edit>,
    pub(super) answer: Vec<Edit>,
    pub(super) redirect: Option<Redirect>,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) cors: Option<Arc<Cors>>,
}

impl CompiledRule {
    pub(super) fn new(rule: &Rule, broken: Option<String>) -> Self {
        let of_backend = |backend: &Backend| {
            let filters = Filters::new(&backend.filters)?;
            match (&filters.redirect, &filters.cors) {
                (None, None) => Ok(filters),
                _ => Err("a backend's filters cannot answer by themselves".to_owned()),
            }
        };
        Self {
            filters: Filters::new(&rule.filters),
            backends: rule.backends.iter().map(of_backend).collect(),
            rule: rule.clone(),
            broken,
        }
    }

    /// The backend that a number stands for, by weight.
    pub(super) fn backend(&self, roll: u64) -> Option<usize> {
        pick(self.rule.backends.iter().map(|backend| backend.weight), roll)
    }
}

impl Filters {
    fn new(filters: &[Filter]) -> Result<Self, String> {
        let mut all = Self::default();
        for filter in filters {
            match filter {
                Filter::RequestHeaders(edit) => all.request.push(Edit::of_request(edit)?),
                Filter::ResponseHeaders(edit) => all.answer.push(Edit::of_answer(edit)?),
                Filter::Redirect(redirect) => {
                    redirect.path.as_ref().map(path_edit::check).transpose()?;
                    all.redirect = Some(redirect.clone());
                }
                Filter::Rewrite(rewrite) => {
                    rewrite.path.as_ref().map(path_edit::check).transpose()?;
                    all.rewrite = Some(rewrite.clone());
                }
                Filter::Mirror(mirror) => all.mirrors.push(mirror.clone()),
                Filter::Cors(cors) => all.cors = Some(Arc::new(cors.clone())),
            }
        }
        Ok(all)
    }
}
