//! The writer thread: takes what waits, commits it as one, then answers.

use rusqlite::{Connection, Savepoint, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{StoreError, schema};
use crate::model::Change;

/// A request waiting for the writer.
pub(super) trait Job: Send {
    /// Does the work in a savepoint; returns the changes it made, none if it was refused.
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Vec<Change>;
    /// Answers, after the transaction was committed or failed.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

/// A [`Job`] made of a closure and the place for its answer.
pub(super) struct Task<T, E, F> {
    work: Option<F>,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Task<T, E, F> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, E>>) -> Self {
        Self { work: Some(work), outcome: None, reply }
    }
}

impl<T, E, F> Job for Task<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: FnOnce(&Savepoint<'_>, &mut Vec<Change>) -> Result<T, E> + Send,
{
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Vec<Change> {
        let Some(work) = self.work.take() else { return Vec::new() };
        let mut changes = Vec::new();
        let outcome = in_savepoint(transaction, work, &mut changes);
        if outcome.is_err() {
            changes.clear();
        }
        self.outcome = Some(outcome);
        changes
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            // A refusal stays one whatever became of the others.
            (Err(_), Some(Err(refusal))) => Err(refusal),
            (Err(error), _) => Err(error.into()),
            (Ok(()), None) => Err(StoreError::Closed.into()),
        };
        // An asker that went away has no use for the answer.
        let _ = self.reply.send(outcome);
    }
}

fn in_savepoint<T, E: From<StoreError>>(
    transaction: &mut Transaction<'_>,
    work: impl FnOnce(&Savepoint<'_>, &mut Vec<Change>) -> Result<T, E>,
    changes: &mut Vec<Change>,
) -> Result<T, E> {
    let savepoint = transaction.savepoint().map_err(StoreError::from)?;
    let value = work(&savepoint, changes)?;
    savepoint.commit().map_err(StoreError::from)?;
    Ok(value)
}

/// Serves `queue` until every sender is gone.
pub(super) fn run(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Box<dyn Job>>,
    mut published: impl FnMut(Vec<Change>),
) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let committed = commit(&mut connection, &mut batch).map(&mut published);
        if let Err(error) = &committed {
            tracing::error!(error = %crate::chain(error), "the database refused a write");
        }
        for job in batch {
            job.finish(committed.clone());
        }
    }
}

fn commit(connection: &mut Connection, batch: &mut [Box<dyn Job>]) -> Result<Vec<Change>, StoreError> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut changes = Vec::new();
    for job in batch {
        changes.extend(job.run(&mut transaction));
        // On a full disk SQLite rolls back everything by itself; what ran after that would be committed alone, and untold.
        if transaction.is_autocommit() {
            return Err(StoreError::GivenUp);
        }
    }
    schema::record(&transaction, &changes)?;
    transaction.commit()?;
    Ok(changes)
}

/// Requests that share one transaction at most.
const MAX_BATCH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_done_after_a_full_disk_ended_the_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(dir.path().join("db")).unwrap();
        let tables =
            "PRAGMA journal_mode = WAL; CREATE TABLE kept (x BLOB) STRICT; PRAGMA max_page_count = 20;";
        connection.execute_batch(tables).unwrap();
        let (too_large, _first) = insert("zeroblob(2000000)");
        let (small, _second) = insert("x'00'");

        let committed = commit(&mut connection, &mut [too_large, small]);

        assert!(matches!(committed, Err(StoreError::GivenUp)));
        let kept: i64 = connection.query_row("SELECT count(*) FROM kept", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 0);
    }

    fn insert(value: &str) -> (Box<dyn Job>, oneshot::Receiver<Result<(), StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let sql = format!("INSERT INTO kept VALUES ({value})");
        let work = move |db: &Savepoint<'_>, _: &mut Vec<Change>| {
            db.execute(&sql, [])?;
            Ok::<_, StoreError>(())
        };
        (Box::new(Task::new(work, reply)), answer)
    }
}
