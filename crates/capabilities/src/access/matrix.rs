//! Who may do what with a row of the user's, tried out.

use indexmap::IndexMap;
use kernel::Result;
use serde_json::Map;

use super::trial::{Target, Trial};
use super::{Operation, Persona};
use crate::database::Writer;
use crate::rows::TableModel;

/// Who may do what with a row that `user` owns.
pub type Matrix = IndexMap<&'static str, Vec<Operation>>;

/// Tries every operation as everybody, inside the open transaction of `db`, which is as it was afterwards.
///
/// # Errors
/// `conflict` where no row can be made.
pub(crate) async fn matrix(db: &mut Writer, table: &TableModel) -> Result<Matrix> {
    let mut matrix = Matrix::new();
    for persona in Persona::ALL {
        let subject = persona.subject();
        let mut may = Vec::new();
        for operation in Operation::ALL {
            let on = Target::Made(Map::new());
            let trial = Trial { table, subject: &subject, operation, on, new: Map::new(), given: Vec::new() };
            if trial.run(db).await?.allowed {
                may.push(operation);
            }
        }
        matrix.insert(persona.as_str(), may);
    }
    Ok(matrix)
}
