// A plain Socket.IO server, as its documentation shows it, with its default settings. It knows nothing of the
// client's conventions: no heartbeat event, no subscriptions.
//
// Its argument, if any, is the options of the server in JSON. A line on its standard input, ["/", "event", ...], is
// emitted to all clients of a namespace. Prints its port, then a line for each client of / that it has lost, and
// ends when its standard input does.

const { createServer } = require("node:http");
const { createInterface } = require("node:readline");
const { Server } = require("socket.io");

const web = createServer();
const io = new Server(web, JSON.parse(process.argv[2] ?? "{}"));

io.on("connection", (socket) => {
  socket.on("ask", (data, acknowledge) => acknowledge(data));
  socket.on("add", (a, b, acknowledge) => acknowledge(a + b));
  socket.on("tell_me", async (question) => {
    const answer = await socket.timeout(5000).emitWithAck("question", question);
    socket.emit("you_said", answer);
  });
  socket.on("count_to", (limit) => {
    for (let number = 1; number <= limit; number++) {
      socket.emit("number", number);
    }
  });
  socket.on("send_bytes", (size) => socket.emit("bytes", Buffer.alloc(size, 7), { size }));
  socket.on("disconnect_me", () => socket.disconnect());
  socket.on("disconnect", (reason) => console.log(reason));
  socket.on("close_me", () => socket.disconnect(true));
});

io.of("/members").use((socket, next) => {
  next(socket.handshake.auth.token === "good" ? undefined : new Error("members only"));
});

io.of("/chat").on("connection", () => {});

io.of("/members").on("connection", (socket) => {
  socket.on("ask", (data, acknowledge) => acknowledge(data));
});

web.listen(0, "127.0.0.1", () => console.log(web.address().port));
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [namespace, ...event] = JSON.parse(line);
    io.of(namespace).emit(...event);
  })
  .on("close", () => process.exit(0));
