//! Which requests are logged ↔ `ambit.v1.AccessLogging`.

use mesh_proto::ambit as pb;

use crate::access_log::{AccessLogging, Expression, InvalidExpression, MOST_FILTERS};

pub(super) fn read(wire: &pb::AccessLogging) -> Result<AccessLogging, InvalidExpression> {
    if wire.filters.len() > MOST_FILTERS {
        return Err(InvalidExpression { at: 1, why: format!("more than {MOST_FILTERS} of them") });
    }
    let filters = wire.filters.iter().map(|text| Expression::compile(text)).collect::<Result<_, _>>()?;
    Ok(AccessLogging { filters })
}

pub(super) fn write(logging: &AccessLogging) -> pb::AccessLogging {
    pb::AccessLogging { filters: logging.filters.iter().map(|filter| filter.source().to_owned()).collect() }
}
