//! Transactions, step by step.

use super::*;

#[test]
fn an_unknown_transactional_id_is_not_described() {
    let shard = Shard::new(Arc::default(), 0);
    assert_eq!(shard.describe("id"), Err(TransactionError::TransactionalIdNotFound));
}
