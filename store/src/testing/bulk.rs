//! Many readings at once, past the writer: how a benchmark gets a table that is large already.

use domain::{Arrival, BootId, ElevatorId, Reading, SourceId, TerminalId};
use sqlx::postgres::PgConnection;

use crate::Database;
use crate::copy::CopyBuffer;
use crate::rows::{Origin, ReadingRow, Row};

/// A connection that only adds rows. Their commits do not wait for the disk.
#[derive(Debug)]
pub struct Bulk {
    connection: PgConnection,
    buffer: CopyBuffer,
    terminal: TerminalId,
}

impl Bulk {
    /// Connects.
    pub async fn open(database: &Database) -> Self {
        let mut connection = database.connection().await.expect("the database answers");
        let set = sqlx::raw_sql("SET synchronous_commit = off").execute(&mut connection).await;
        set.expect("a setting of the session");
        // Not part of a row; the source stands for it.
        let terminal = TerminalId::new("bulk").expect("a terminal id");
        Self { connection, buffer: CopyBuffer::default(), terminal }
    }

    /// Adds readings of these elevators and sources, in this order, in one COPY. No key may be there already.
    pub async fn readings<'a>(
        &mut self,
        readings: impl Iterator<Item = (ElevatorId, SourceId, Arrival, &'a Reading)>,
    ) -> u64 {
        self.buffer.begin();
        for (elevator, source, arrival, reading) in readings {
            let origin = Origin {
                elevator_id: elevator.0,
                terminal_id: &self.terminal,
                source,
                boot: BootId(1),
                arrival,
                sent: Some(arrival.at),
            };
            ReadingRow { origin, item: 0, reading }.encode(&mut self.buffer);
        }
        let statement = &ReadingRow::table().copy;
        let mut copy = self.connection.copy_in_raw(statement).await.expect("COPY begins");
        copy.send(self.buffer.end()).await.expect("rows are taken");
        copy.finish().await.expect("COPY ends")
    }
}

#[cfg(test)]
mod tests {
    use domain::{ArrivalNo, Field, Seq, Timestamp};

    use super::*;
    use crate::recovery::rows_after;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        let test = TestDatabase::new().await;
        let database = test.open().await;
        sqlx::query("INSERT INTO source (terminal_id, boot) VALUES ('t', 1)")
            .execute(database.pool())
            .await
            .unwrap();
        let at = Timestamp::from_millis(1_800_000_000_000);
        let mut reading = Reading::new(Seq(4), at);
        reading.load_kg = Field::Known(75);
        let arrival = Arrival { no: ArrivalNo(9), at };
        let rows = [(ElevatorId(1), SourceId(1), arrival, &reading)];
        assert_eq!(Bulk::open(&database).await.readings(rows.into_iter()).await, 1);
        let found = rows_after(&database, ArrivalNo(0)).all().await.unwrap();
        let domain::Message::Telemetry(batch) = &*found[0].message else { panic!("a reading") };
        assert_eq!((found.len(), &batch.readings[..]), (1, &[reading][..]));
    }
}
