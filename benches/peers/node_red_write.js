// Body of the function node: a joined batch of messages becomes one COPY on one of two connections. A batch that is
// refused is written row by row, so that its good rows are kept.
const COLUMNS = "elevator_id, time, seq, source, sent_mask, position_mm, velocity_mm_s, flags, vibration_mm_s2, "
    + "service_mode, car_status, direction, door_zone, door_state, passengers, floor_ordinal, load_kg, people_count, "
    + "temperature_dc, floor, codes, arrival_no, arrived, age_ms, skew_ms, item, code_slugs";
const { Pool } = global.get("pg");
const copyFrom = global.get("copyFrom");
let pool = context.get("pool");
if (!pool) {
    pool = new Pool({ connectionString: env.get("PEERS_DATABASE"), max: 2 });
    context.set("pool", pool);
}

const arrived = new Date();
const arrivedText = arrived.toISOString();
let no = context.get("no") || 0;
const flag = (value) => (value === undefined || value === null ? null : Number(value));
const rows = [];
for (const one of msg.payload) {
    const message = one.payload;
    if (!message || !Array.isArray(message.readings)) continue;
    no += 1;
    const id = one.topic.split("/")[3];
    const terminal = Number(id.slice(id.lastIndexOf("-") + 1));
    const sent = message.sent === undefined ? NaN : Date.parse(message.sent);
    message.readings.forEach((r, item) => rows.push([
        terminal, r.time, r.seq, terminal, 0x7ff, r.position_mm, r.velocity_mm_s, r.flags, r.vibration_mm_s2,
        r.service_mode, r.car_status, r.car_direction, flag(r.door_zone), r.door_state, flag(r.passengers),
        r.floor_ordinal, r.load_kg, r.people_count, r.temperature_dc, r.floor,
        r.codes ? `{${r.codes.map((code) => JSON.stringify(code)).join(",")}}` : null, no, arrivedText,
        Number.isNaN(sent) ? null : sent - Date.parse(r.time), Number.isNaN(sent) ? null : arrived - sent, item, null,
    ]));
}
context.set("no", no);

const special = /[\\\t\n\r]/;
const escaped = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };
const field = (value) => {
    if (value === undefined || value === null) return "\\N";
    const text = String(value);
    return special.test(text) ? text.replace(/[\\\t\n\r]/g, (one) => escaped[one]) : text;
};
const client = await pool.connect();
try {
    const text = rows.map((row) => row.map(field).join("\t")).join("\n") + "\n";
    const stream = client.query(copyFrom(`COPY telemetry (${COLUMNS}) FROM STDIN`));
    await new Promise((resolve, reject) => {
        stream.on("finish", resolve);
        stream.on("error", reject);
        stream.end(text);
    });
} catch (error) {
    node.warn(`a batch is refused: ${error.message}`);
    const places = rows[0].map((_, index) => `$${index + 1}`).join(", ");
    const insert = `INSERT INTO telemetry (${COLUMNS}) VALUES (${places}) ON CONFLICT DO NOTHING`;
    for (const row of rows) {
        try {
            await client.query(insert, row.map((value) => (value === undefined ? null : value)));
        } catch (refusal) {
            node.warn(`a row is refused: ${refusal.message}`);
        }
    }
} finally {
    client.release();
}
return null;
