//! The baggage of a pod's workload, built once for each workload that the tables say it is.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mesh_hbone::connect;
use mesh_model::workload::Workload;

/// The baggage of the last workload asked about. It keeps the workload, so that its address is nobody else's.
#[derive(Default)]
pub(crate) struct Described(RefCell<Option<(Arc<Workload>, Rc<str>)>>);

impl Described {
    /// The baggage of `workload`.
    pub(crate) fn baggage(&self, workload: &Arc<Workload>) -> Rc<str> {
        let mut known = self.0.borrow_mut();
        if let Some((of, baggage)) = &*known
            && Arc::ptr_eq(of, workload)
        {
            return baggage.clone();
        }
        let baggage: Rc<str> = connect::baggage_of(workload).into();
        *known = Some((workload.clone(), baggage.clone()));
        baggage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_described_once_and_its_successor_anew() {
        let described = Described::default();
        let first = Arc::new(Workload { canonical_name: "cart".into(), ..Workload::empty("cart") });
        let baggage = described.baggage(&first);
        assert!(Rc::ptr_eq(&baggage, &described.baggage(&first)));
        let second = Arc::new(Workload { canonical_revision: "v2".into(), ..(*first).clone() });
        assert_eq!(*described.baggage(&second), format!("{baggage},service.version=v2"));
        assert_eq!(described.baggage(&first), baggage);
    }
}
