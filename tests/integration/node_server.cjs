// A plain Socket.IO server, as its documentation shows it, with its default settings. It knows nothing of the
// client's conventions: no heartbeat event, no subscriptions.
//
// Prints its port, and ends when its standard input does.

const { createServer } = require("node:http");
const { Server } = require("socket.io");

const web = createServer();
const io = new Server(web);

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
  socket.on("close_me", () => socket.disconnect(true));
});

io.of("/members").use((socket, next) => {
  next(socket.handshake.auth.token === "good" ? undefined : new Error("members only"));
});

io.of("/members").on("connection", (socket) => {
  socket.on("ask", (data, acknowledge) => acknowledge(data));
});

web.listen(0, "127.0.0.1", () => console.log(web.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
