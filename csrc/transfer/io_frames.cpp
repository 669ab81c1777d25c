// What agents say to the IoLoop, and what it says to them and to the disk.
#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <system_error>

#include "transfer/io_loop.h"

namespace flexkv {

using protocol::FrameType;

namespace {

constexpr std::size_t writer_limit_bytes = 256u << 10;
constexpr int max_flushes_per_turn = 16;
constexpr int max_disk_sends_per_turn = 256;

std::string ack_error(const protocol::AckBody& ack) {
  return ack.error == 0 ? "the copy failed"
                        : "the copy failed: " + std::generic_category().message(static_cast<int>(ack.error));
}

const std::vector<std::int64_t>& slots_of(const OpSpec& op) { return op.type == OpType::h2d ? op.src : op.dst; }
const std::vector<std::int64_t>& blocks_of(const OpSpec& op) { return op.type == OpType::h2d ? op.dst : op.src; }

std::span<const std::int64_t> part_of(const std::vector<std::int64_t>& ids, const Share& share) {
  return std::span(ids).subspan(share.begin, share.end - share.begin);
}

}  // namespace

bool IoLoop::receive(Id id, AgentConnection& connection) {
  const IoStatus status = connection.reader().fill(connection.socket_fd());
  if (status == IoStatus::would_block) return false;
  if (status == IoStatus::closed) {
    // In this process the close itself says that no copy runs; of another process its death must say it.
    const bool certain = connection.in_this_process() || connection.peer_dead();
    lose(id, connection, certain, "it closed the connection");
    return false;
  }
  Frame frame;
  while (status == IoStatus::ok && connection.reader().next(frame)) {
    if (!handle(id, connection, frame)) return false;
  }
  if (!connection.reader().failed()) return true;
  break_off(id, connection, connection.reader().error());
  return false;
}

// False: the connection is over.
bool IoLoop::handle(Id id, AgentConnection& connection, const Frame& frame) {
  const bool registered = connection.state == AgentConnection::State::registered;
  if (registered == (frame.type == FrameType::register_rank)) {
    break_off(id, connection, registered ? "a second REGISTER" : "a frame before REGISTER");
    return false;
  }
  switch (frame.type) {
    case FrameType::register_rank:
      return on_register(id, connection, frame);
    case FrameType::mapped:
      return on_mapped(id, connection, frame);
    case FrameType::ack:
      return on_ack(id, connection, frame);
    default:  // BYE: the reader lets no other type pass. It touches nothing any more, also no op it has yet to read.
      lose(id, connection, true, "it said BYE");
      return false;
  }
}

bool IoLoop::on_register(Id id, AgentConnection& connection, const Frame& frame) {
  const auto body = read_body<protocol::RegisterBody>(frame.body);
  const auto* tag = reinterpret_cast<const char*>(frame.body.data() + sizeof(body));
  const std::string layout_tag(tag, body.tag_bytes);
  settle_earlier_holder(body.rank, connection.pid());
  std::string objection;
  {
    const std::lock_guard lock(state_.mutex);
    objection = state_.ranks.objection(body, layout_tag);
    if (objection.empty()) {
      connection.state = AgentConnection::State::registered;
      connection.rank = body.rank;
      state_.ranks.accept(body, layout_tag, connection.pid());
      state_.num_device_blocks = state_.ranks.least_num_blocks();
      state_.graphs.executor_up(body.rank);
      state_.changed.notify_all();
      return true;
    }
  }
  refuse(connection.socket_fd(), "process " + std::to_string(connection.pid()) + ": " + objection);
  lose(id, connection, true, objection);
  return false;
}

// REQUIRES: nothing was sent to this peer: its empty socket takes the one frame.
void IoLoop::refuse(int socket_fd, std::string reason) {
  record_error("an agent was refused: " + reason);
  reason.resize(std::min<std::size_t>(reason.size(), protocol::max_tag_bytes));
  FrameWriter writer;
  writer.push(FrameType::refused, std::as_bytes(std::span(reason)));
  (void)writer.flush(socket_fd);
}

// A rank is registered anew while an earlier connection of it is still known. What that one has sent (BYE), its end, or
// the end of its process may not have had their turn yet.
void IoLoop::settle_earlier_holder(std::uint32_t rank, pid_t new_pid) {
  const auto holder = std::ranges::find_if(connections_, [&](const auto& entry) {
    return entry.second.state != AgentConnection::State::greeting && entry.second.rank == rank;
  });
  if (holder == connections_.end()) return;
  const Id id = holder->first;
  if (holder->second.peer_dead()) {
    on_peer_death(id, holder->second);
    return;
  }
  if (holder->second.state == AgentConnection::State::registered) read_out(id, holder->second);
  const auto still = connections_.find(id);
  if (still == connections_.end() || still->second.state != AgentConnection::State::lost) return;
  // An agent connects anew only when its copies of before have ended, and the same process takes the rank over. In this
  // process that could be another agent: here the close of the first one's socket says it.
  const bool ended = still->second.in_this_process() ? still->second.peer_closed() : still->second.pid() == new_pid;
  if (ended) release(id, still->second);
}

bool IoLoop::on_mapped(Id id, AgentConnection& connection, const Frame& frame) {
  const auto body = read_body<protocol::MappedBody>(frame.body);
  std::string error;
  {
    const std::lock_guard lock(state_.mutex);
    if (!connection.pool_sent) {
      error = "MAPPED without a pool";
    } else if (body.num_slots > static_cast<std::uint64_t>(state_.pool->num_slots()) ||
               static_cast<std::int64_t>(body.num_slots) < connection.slots_mapped) {
      error = "MAPPED " + std::to_string(body.num_slots) + " after " + std::to_string(connection.slots_mapped) +
              " of " + std::to_string(state_.pool->num_slots()) + " slots";
    } else {
      connection.slots_mapped = static_cast<std::int64_t>(body.num_slots);
      state_.ranks.set_mapped(connection.rank, connection.slots_mapped);
      state_.changed.notify_all();
      return true;
    }
  }
  break_off(id, connection, error);
  return false;
}

bool IoLoop::on_ack(Id id, AgentConnection& connection, const Frame& frame) {
  const auto ack = read_body<protocol::AckBody>(frame.body);
  {
    const std::lock_guard lock(state_.mutex);
    if (state_.graphs.acknowledge(connection.rank, ack, ack_error(ack))) return true;
  }
  break_off(id, connection, "ACK of op " + std::to_string(ack.op_id) + ", which it does not have");
  return false;
}

void IoLoop::pump_all() {
  for (auto entry = connections_.begin(); entry != connections_.end();) {
    const Id id = entry->first;
    AgentConnection& connection = entry->second;
    ++entry;  // pump may erase
    if (connection.state == AgentConnection::State::registered && !connection.blocked) pump(id, connection);
  }
}

void IoLoop::pump(Id id, AgentConnection& connection) {
  bool more = true;
  IoStatus status = IoStatus::ok;
  try {
    for (int i = 0; i < max_flushes_per_turn && more && status == IoStatus::ok; ++i) {
      more = fill_writer(connection);
      status = connection.writer().flush(connection.socket_fd());
    }
  } catch (const std::system_error& error) {  // no descriptor to send the pool with
    break_off(id, connection, error.what());
    return;
  }
  if (status == IoStatus::error) {
    break_off(id, connection, "its socket failed");
    return;
  }
  // A closed peer is found by its HUP, after what it has sent was read.
  connection.blocked = status != IoStatus::closed && (more || connection.writer().pending());
  if (connection.blocked != connection.write_armed) {
    watch_socket(id, connection, connection.blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    connection.write_armed = connection.blocked;
  }
}

bool IoLoop::fill_writer(AgentConnection& connection) {
  const std::lock_guard lock(state_.mutex);
  FrameWriter& writer = connection.writer();
  if (!state_.pool) return false;
  if (!connection.pool_sent) {
    const HostPool& pool = *state_.pool;
    const int shard = static_cast<int>(state_.ranks.segment_of(connection.rank));
    // Agents that share a segment each register it with a device, in one process perhaps: each maps it for itself.
    const bool is_shared = state_.ranks.replicas() > 1;
    const protocol::PoolBody body = {pool.generation(), static_cast<std::uint64_t>(pool.num_slots()),
                                     pool.stride_bytes(shard),
                                     is_shared ? 0 : reinterpret_cast<std::uint64_t>(pool.base(shard))};
    writer.push(FrameType::pool, bytes_of(body), {}, {}, pool.fd(shard));
    connection.pool_sent = true;
  }
  while (writer.pending_bytes() < writer_limit_bytes) {
    const std::optional<OpGraphTable::Send> send = state_.graphs.take_send(connection.rank);
    if (!send) return false;
    if (send->lost_ticket != 0) {
      writer.push(FrameType::lost, bytes_of(protocol::LostBody{send->lost_ticket}));
    } else if (send->recall) {
      writer.push(FrameType::cancel, bytes_of(protocol::CancelBody{static_cast<std::uint64_t>(send->op->op_id)}));
    } else {
      send_op(connection, *send);
    }
  }
  return true;
}

void IoLoop::pump_disk() {
  for (int i = 0; i < max_disk_sends_per_turn; ++i) {
    if (!send_to_disk()) return;
  }
  state_.io_event.signal();  // peers have their turn first
}

// False when there is nothing to send. The disk is called without the mutex, since it may acknowledge from within. An
// op stays where it is until it is acknowledged, and nobody but the disk does that.
bool IoLoop::send_to_disk() {
  std::shared_ptr<DiskExecutor> disk;
  const OpSpec* op = nullptr;
  std::int64_t op_id = 0;
  bool recall = false;
  {
    const std::lock_guard lock(state_.mutex);
    if (!state_.disk) return false;
    const std::optional<OpGraphTable::Send> send = state_.graphs.take_send(state_.graphs.disk());
    if (!send) return false;
    disk = state_.disk;
    op = send->op;
    op_id = op->op_id;
    recall = send->recall;
  }
  if (recall) {
    disk->cancel(op_id);
    return true;
  }
  try {
    disk->submit(*op);
  } catch (const std::exception& error) {  // it was not taken: out of memory
    DiskAck ack;
    ack.op_id = op_id;
    ack.error = error.what();
    const std::lock_guard lock(state_.mutex);
    (void)state_.graphs.acknowledge(std::move(ack));
  }
  return true;
}

// REQUIRES: the state's mutex is held.
void IoLoop::send_op(AgentConnection& connection, const OpGraphTable::Send& send) {
  const OpSpec& op = *send.op;
  const std::span<const std::int64_t> slots = part_of(slots_of(op), send.share);
  const std::int64_t last_slot = *std::ranges::max_element(slots);
  const auto op_id = static_cast<std::uint64_t>(op.op_id);
  if (last_slot >= connection.slots_mapped) {  // a worker that was started anew
    state_.io_event.signal();                  // other ranks may have to be told
    if (op.layer_ticket != 0) connection.writer().push(FrameType::lost, bytes_of(protocol::LostBody{op.layer_ticket}));
    const protocol::AckBody failed = {op_id, 0, 0, protocol::AckStatus::failed, 0};
    (void)state_.graphs.acknowledge(connection.rank, failed,
                                    "slot " + std::to_string(last_slot) + " is not mapped there yet");
    return;
  }
  const auto direction = op.type == OpType::h2d ? protocol::Direction::load : protocol::Direction::store;
  const protocol::OpBody body = {op_id, op.after_step, op.layer_ticket, direction,
                                 static_cast<std::uint32_t>(slots.size())};
  connection.writer().push(FrameType::op, bytes_of(body), std::as_bytes(slots),
                           std::as_bytes(part_of(blocks_of(op), send.share)));
}

}  // namespace flexkv
