// Node-RED without editor and with the PostgreSQL client in reach of its function nodes.
const path = require("path");
const modules = path.join(process.env.PEERS_FOLDER, "node_modules");

module.exports = {
    flowFile: process.env.PEERS_FLOW,
    userDir: process.env.PEERS_USER_FOLDER,
    credentialSecret: false,
    disableEditor: true,
    httpAdminRoot: false,
    httpNodeRoot: false,
    uiHost: "127.0.0.1",
    uiPort: Number(process.env.PEERS_UI_PORT),
    diagnostics: { enabled: false, ui: false },
    telemetry: { enabled: false },
    logging: { console: { level: "warn", metrics: false, audit: false } },
    functionGlobalContext: {
        pg: require(path.join(modules, "pg")),
        copyFrom: require(path.join(modules, "pg-copy-streams")).from,
    },
};
