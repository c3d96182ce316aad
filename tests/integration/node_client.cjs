// A plain Socket.IO client, as its documentation shows it. It is told what to do by lines of JSON, and tells by
// lines of JSON what happens to it. It ends when its standard input does.
//
//   {"do": "connect", "url": ..., "options": {...}}
//   {"do": "ask", "id": 1, "args": ["event", ...]}      emit, and tell the acknowledgement
//   {"do": "drop"}                                      lose the connection, as far as the server can tell
//   {"do": "return"}                                    connect again

const { createInterface } = require("node:readline");
const { io } = require("socket.io-client");

let socket;

const tell = (what, more) => console.log(JSON.stringify({ what, ...more }));

const orders = {
  connect({ url, options }) {
    socket = io(url, { reconnection: false, ...options });
    socket.io.on("open", () => {
      tell("uses", { transport: socket.io.engine.transport.name });
      socket.io.engine.on("upgrade", (transport) => tell("uses", { transport: transport.name }));
    });
    socket.on("connect", () => tell("connected"));
    socket.on("connect_error", ({ message, data }) => tell("refused", { message, data }));
    socket.on("disconnect", (reason) => tell("disconnected", { reason }));
    socket.onAny((...args) => tell("received", { args }));
  },
  ask({ id, args }) {
    if (socket.io.opts.retries === undefined) {
      socket.emit(...args, (answer) => tell("answered", { id, answer }));
    } else {
      socket.emit(...args, (error, answer) => tell("answered", { id, error: error?.message, answer }));
    }
  },
  drop() {
    socket.io.engine.close();
  },
  return() {
    socket.connect();
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    orders[order.do](order);
  })
  .on("close", () => process.exit(0));
