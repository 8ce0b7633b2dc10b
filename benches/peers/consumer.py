"""The usual way from MQTT to PostgreSQL in Python: asyncio, batches, COPY BINARY.

gmqtt reads many packets at once (paho reads byte by byte), orjson decodes, asyncpg copies, uvloop runs it. A batch is
what came while the one before was written, so it grows by itself under load.

Two ways to run it:
- quick: the library acknowledges a message when it comes, and a batch that is refused is logged and let go.
- careful: each message is acknowledged after its batch is committed, and a batch that is refused is written again
  around what is there and row by row.
"""

import argparse
import asyncio
import sys
from datetime import datetime, timezone

import asyncpg
import gmqtt
import orjson
import uvloop

COLUMNS = (
    "elevator_id", "time", "seq", "source", "sent_mask", "position_mm", "velocity_mm_s", "flags", "vibration_mm_s2",
    "service_mode", "car_status", "direction", "door_zone", "door_state", "passengers", "floor_ordinal", "load_kg",
    "people_count", "temperature_dc", "floor", "codes", "arrival_no", "arrived", "age_ms", "skew_ms", "item",
    "code_slugs",
)
BATCH_MAX = 5000
INSERT = f"""INSERT INTO telemetry ({", ".join(COLUMNS)})
VALUES ({", ".join(f"${n + 1}" for n in range(len(COLUMNS)))}) ON CONFLICT DO NOTHING"""
MERGE = f"""INSERT INTO telemetry ({", ".join(COLUMNS)}) SELECT {", ".join(COLUMNS)} FROM staging
ON CONFLICT DO NOTHING"""


def number(value):
    return None if value is None else int(value)


def rows(topic, payload, arrival_no, arrived):
    """The rows of a message. The place of the terminal's number in its id stands for a registry."""
    terminal = int(topic.split("/")[3].rsplit("-", 1)[1])
    message = orjson.loads(payload)
    sent = datetime.fromisoformat(message["sent"]) if "sent" in message else None
    for item, one in enumerate(message["readings"]):
        time = datetime.fromisoformat(one["time"])
        get = one.get
        yield (
            terminal, time, one["seq"], terminal, 0x7FF, get("position_mm"), get("velocity_mm_s"), get("flags"),
            get("vibration_mm_s2"), get("service_mode"), get("car_status"), get("car_direction"),
            number(get("door_zone")), get("door_state"), number(get("passengers")), get("floor_ordinal"),
            get("load_kg"), get("people_count"), get("temperature_dc"), get("floor"), get("codes"), arrival_no, arrived,
            int((sent - time).total_seconds() * 1000) if sent else None,
            int((arrived - sent).total_seconds() * 1000) if sent else None, item, None,
        )


class Consumer:
    def __init__(self, careful):
        self.careful = careful
        self.waiting = []
        self.wake = asyncio.Event()
        self.arrivals = 0

    def on_message(self, _client, topic, payload, _qos, _properties):
        self.waiting.append((topic, payload, None))
        self.wake.set()
        return 0

    async def on_message_careful(self, _client, topic, payload, _qos, _properties):
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((topic, payload, done))
        self.wake.set()
        await done
        return 0

    async def write(self, database):
        while True:
            await self.wake.wait()
            batch, self.waiting = self.waiting[:BATCH_MAX], self.waiting[BATCH_MAX:]
            if not self.waiting:
                self.wake.clear()
            arrived, records = datetime.now(timezone.utc), []
            for topic, payload, _ in batch:
                self.arrivals += 1
                try:
                    records.extend(rows(topic, payload, self.arrivals, arrived))
                except (ValueError, KeyError, TypeError) as error:
                    print("a message is no reading:", error, file=sys.stderr)
            await self.store(database, records)
            for _, _, done in batch:
                if done:
                    done.set_result(None)

    async def store(self, database, records):
        try:
            await database.copy_records_to_table("telemetry", records=records, columns=COLUMNS)
            return
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TypeError, OverflowError) as error:
            print("a batch is refused:", error, file=sys.stderr)
            if not self.careful:
                return
        try:
            async with database.transaction():
                await database.execute("CREATE TEMP TABLE staging (LIKE telemetry) ON COMMIT DROP")
                await database.copy_records_to_table("staging", records=records, columns=COLUMNS)
                await database.execute(MERGE)
            return
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TypeError, OverflowError):
            pass
        for record in records:
            try:
                await database.execute(INSERT, *record)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TypeError, OverflowError) as error:
                print("a row is refused:", error, file=sys.stderr)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--careful", action="store_true")
    arguments = parser.parse_args()
    consumer = Consumer(arguments.careful)
    database = await asyncpg.connect(arguments.database)
    # MQTT 5, because gmqtt acknowledges late there alone. The session outlives the process.
    client = gmqtt.Client(
        "consumer",
        clean_session=False,
        session_expiry_interval=3600,
        receive_maximum=65535,
        optimistic_acknowledgement=not arguments.careful,
    )
    client.on_message = consumer.on_message_careful if arguments.careful else consumer.on_message
    client.on_connect = lambda client, *_: client.subscribe("lift/v1/+/+/telemetry.json", qos=1)
    await client.connect("127.0.0.1", arguments.port)
    await consumer.write(database)


uvloop.install()
asyncio.run(main())
