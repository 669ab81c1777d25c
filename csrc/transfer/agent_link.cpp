#include "transfer/agent_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <system_error>
#include <utility>
#include <vector>

#include "transfer/timeout.h"

namespace flexkv {

using protocol::AckStatus;
using protocol::FrameType;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds first_retry{10};
constexpr milliseconds last_retry{500};

bool ids_in_range(std::span<const std::int64_t> ids, std::int64_t end) {
  return std::ranges::all_of(ids, [end](std::int64_t id) { return id >= 0 && id < end; });
}

}  // namespace

struct AgentLink::Connection {
  Fd socket;
  FrameReader reader{PeerRole::engine};
  FrameWriter writer;
  std::shared_ptr<const PoolMapping> pool;
  std::int64_t told = 0;                           // slots that the device may use, as the engine knows
  std::unique_ptr<HostRegistration> registration;  // ends before the mapping does
  bool engine_is_this_process = false;
  bool open = true;       // false: lost, refused, or closed by us
  bool bye_said = false;  // nothing is read or acknowledged any more
};

AgentLink::AgentLink(const AgentConfig& config, const DeviceLayout& layout, CopyBackend& backend, AgentLane& loads,
                     AgentLane& stores, LayerGate& gate, const WakeEvent& wake)
    : config_(config), layout_(layout), backend_(backend), loads_(loads), stores_(stores), gate_(gate), wake_(wake) {}

void AgentLink::run() {
  milliseconds retry = first_retry;
  while (!stopping()) {
    set_state(AgentState::connecting);
    Connection connection;
    connection.socket = connect();
    if (connection.socket.valid()) {
      try {
        serve(connection);
      } catch (const std::exception& error) {  // top of the thread: the connection is lost, the agent goes on
        fail(error.what());
      }
      abandon(connection);
      if (connection.pool) retry = first_retry;
      if (stopping() || state() == AgentState::refused) break;
    }
    (void)sleep_on(-1, 0, Clock::now() + retry);
    retry = std::min(retry * 2, last_retry);
  }
  loads_.close();
  stores_.close();
  if (state() != AgentState::refused) set_state(AgentState::stopped);
}

Fd AgentLink::connect() {
  int error = 0;
  Fd socket = connect_unix(config_.socket_path, error);
  if (!socket.valid()) {
    fail("cannot connect to '" + config_.socket_path + "': " + std::generic_category().message(error));
    return {};
  }
  const std::optional<PeerCredentials> peer = peer_credentials(socket.get());
  if (!peer || peer->uid != ::geteuid()) {
    fail("whoever listens on '" + config_.socket_path + "' is not this user");
    return {};
  }
  return socket;
}

// Returns when the connection is lost or was closed, in whatever way.
void AgentLink::serve(Connection& connection) {
  const std::optional<PeerCredentials> peer = peer_credentials(connection.socket.get());
  connection.engine_is_this_process = peer && peer->pid == ::getpid();
  register_rank(connection);
  while (connection.open) {
    pump(connection);
    if (!connection.open) break;
    const int input = connection.bye_said ? 0 : POLLIN;
    const int output = connection.writer.pending() ? POLLOUT : 0;
    std::optional<Clock::time_point> until;
    if (!loads_.running() && !stores_.running()) {
      const std::lock_guard lock(mutex_);
      until = stop_deadline_;
    }
    if (!sleep_on(connection.socket.get(), input | output, until) && until && Clock::now() >= *until) return;
    connection.open = receive(connection) && connection.open;
  }
}

void AgentLink::register_rank(Connection& connection) {
  const protocol::RegisterBody body = {
      config_.rank,         config_.num_ranks,        layout_.num_blocks,
      layout_.slot_bytes(), config_.tokens_per_block, static_cast<std::uint32_t>(config_.layout_tag.size()),
  };
  connection.writer.push(FrameType::register_rank, bytes_of(body),
                         std::as_bytes(std::span(config_.layout_tag.data(), config_.layout_tag.size())));
  {
    const std::lock_guard lock(mutex_);
    ++connections_;
  }
  set_state(AgentState::registered);
}

// Sends what there is to send; starts and ends the farewell when stopping.
void AgentLink::pump(Connection& connection) {
  if (stopping()) {
    loads_.cancel_queued();
    stores_.cancel_queued();
  }
  const bool idle = loads_.idle() && stores_.idle();  // asked before the results are taken: none is still to come
  send_results(connection);
  send_mapped(connection);
  if (stopping() && idle && !connection.bye_said) {
    connection.writer.push(FrameType::bye);
    connection.bye_said = true;
  }
  const IoStatus status = connection.writer.flush(connection.socket.get());
  if (status == IoStatus::closed || status == IoStatus::error) {
    fail("connection to the engine lost");
    connection.open = false;
  } else if (connection.bye_said && status == IoStatus::ok) {
    connection.open = false;
  }
}

void AgentLink::send_results(Connection& connection) {
  for (AgentLane* lane : {&loads_, &stores_}) {
    for (const protocol::AckBody& result : lane->take_results()) {
      connection.writer.push(FrameType::ack, bytes_of(result));
    }
  }
}

// Reads once and handles the whole frames that are there. False: the connection is lost.
bool AgentLink::receive(Connection& connection) {
  if (connection.bye_said) return true;
  const IoStatus status = connection.reader.fill(connection.socket.get());
  if (status == IoStatus::would_block) return true;
  if (status == IoStatus::ok) {
    Frame frame;
    while (connection.open && connection.reader.next(frame)) handle(connection, frame);
    if (!connection.reader.failed()) return true;
  }
  fail(connection.reader.failed() ? "engine broke the protocol: " + connection.reader.error()
                                  : "connection to the engine lost");
  return false;
}

void AgentLink::handle(Connection& connection, Frame& frame) {
  switch (frame.type) {
    case FrameType::pool:
      return on_pool(connection, frame);
    case FrameType::op:
      return on_op(connection, frame);
    case FrameType::cancel: {
      const auto op_id = read_body<protocol::CancelBody>(frame.body).op_id;
      loads_.cancel(op_id);
      stores_.cancel(op_id);
      return;
    }
    case FrameType::lost:
      gate_.lose(read_body<protocol::LostBody>(frame.body).layer_ticket);
      return;
    case FrameType::refused: {
      {
        const std::lock_guard lock(mutex_);
        refusal_.assign(reinterpret_cast<const char*>(frame.body.data()), frame.body.size());
      }
      set_state(AgentState::refused);
      connection.open = false;
      return;
    }
    case FrameType::register_rank:
    case FrameType::mapped:
    case FrameType::ack:
    case FrameType::bye:
      return;  // the reader lets none of these pass
  }
}

void AgentLink::on_pool(Connection& connection, Frame& frame) {
  if (connection.pool) {
    fail("engine broke the protocol: a second POOL");
    connection.open = false;
    return;
  }
  const auto body = read_body<protocol::PoolBody>(frame.body);
  connection.pool = std::make_shared<const PoolMapping>(body, frame.fd.get(), layout_.slot_bytes(),
                                                        connection.engine_is_this_process);
  connection.registration = backend_.use_host(connection.pool->shard(), [this](const HostProgress& progress) {
    {
      const std::lock_guard lock(mutex_);
      host_ = progress;
    }
    wake_.signal();
  });
  gate_.set_connected(true);
  send_mapped(connection);
}

void AgentLink::send_mapped(Connection& connection) {
  const std::int64_t usable = host().num_slots;
  if (usable == connection.told) return;
  connection.told = usable;
  const protocol::MappedBody mapped = {static_cast<std::uint64_t>(usable)};
  connection.writer.push(FrameType::mapped, bytes_of(mapped));
  set_state(AgentState::serving);
}

void AgentLink::on_op(Connection& connection, const Frame& frame) {
  const auto op = read_body<protocol::OpBody>(frame.body);
  if (stopping()) return refuse_op(connection, op, AckStatus::cancelled, ECANCELED);
  if (!connection.pool) return refuse_op(connection, op, AckStatus::failed, ENODEV);
  CopyTask task = {op.op_id, op.after_step, {}, {}, connection.pool, op.layer_ticket};
  const std::size_t ids_bytes = op.num_blocks * sizeof(std::int64_t);
  task.slots.resize(op.num_blocks);
  task.blocks.resize(op.num_blocks);
  if (op.num_blocks > 0) {
    std::memcpy(task.slots.data(), frame.body.data() + sizeof(op), ids_bytes);
    std::memcpy(task.blocks.data(), frame.body.data() + sizeof(op) + ids_bytes, ids_bytes);
  }
  if (!ids_in_range(task.slots, connection.pool->shard().num_slots) ||
      !ids_in_range(task.blocks, static_cast<std::int64_t>(layout_.num_blocks))) {
    return refuse_op(connection, op, AckStatus::failed, EINVAL);
  }
  (op.direction == protocol::Direction::load ? loads_ : stores_).submit(std::move(task));
}

// For ops that reach no lane.
void AgentLink::refuse_op(Connection& connection, const protocol::OpBody& op, AckStatus status, int error) {
  if (op.layer_ticket != 0) gate_.end(op.layer_ticket, false);
  const protocol::AckBody ack = {op.op_id, 0, 0, status, static_cast<std::uint32_t>(error)};
  connection.writer.push(FrameType::ack, bytes_of(ack));
  if (status == AckStatus::failed) {
    const std::lock_guard lock(mutex_);
    ++ops_rejected_;
  }
}

// There is nobody left to acknowledge to. The socket is closed only when no op of it runs any more: an engine in this
// process takes the closing for the word that its pool and blocks are not touched again.
void AgentLink::abandon(Connection& connection) {
  if (state() != AgentState::refused) set_state(AgentState::connecting);
  loads_.cancel_queued();
  stores_.cancel_queued();
  gate_.set_connected(false);
  while (loads_.running() || stores_.running()) (void)sleep_on(-1, 0, std::nullopt);
  (void)loads_.take_results();
  (void)stores_.take_results();
  // A manager in this process that ends waits for its memory.
  if (connection.registration != nullptr && !connection.engine_is_this_process) {
    connection.registration->let_go_gently(stop_.get_token());
  }
  connection.registration.reset();
  {
    const std::lock_guard lock(mutex_);
    host_ = {};
  }
  ::shutdown(connection.socket.get(), SHUT_RDWR);  // forked children may hold the descriptor, too
  connection.socket.reset();
}

bool AgentLink::stopping() const {
  const std::lock_guard lock(mutex_);
  return stop_deadline_.has_value();
}

bool AgentLink::sleep_on(int fd, int events, std::optional<Clock::time_point> until) {
  int timeout_ms = -1;
  if (until) {
    const auto left = std::chrono::ceil<milliseconds>(*until - Clock::now());
    timeout_ms = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
  }
  pollfd fds[2] = {{wake_.fd(), POLLIN, 0}, {fd, static_cast<short>(events), 0}};
  const int ready = ::poll(fds, 2, timeout_ms);
  if (ready > 0 && fds[0].revents != 0) wake_.drain();
  return ready > 0;
}

// Who finds the link stopping finds the token stopped as well.
void AgentLink::request_stop(Clock::time_point deadline) {
  stop_.request_stop();
  {
    const std::lock_guard lock(mutex_);
    stop_deadline_ = deadline;
    if (state_ == AgentState::idle) state_ = AgentState::stopped;  // never started: no thread will say so
  }
  wake_.signal();
}

void AgentLink::set_state(AgentState state) {
  {
    const std::lock_guard lock(mutex_);
    state_ = state;
  }
  state_changed_.notify_all();
}

void AgentLink::fail(const std::string& error) {
  const std::lock_guard lock(mutex_);
  last_error_ = error;
}

AgentState AgentLink::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

bool AgentLink::wait_serving(double timeout_s) const {
  std::unique_lock lock(mutex_);
  state_changed_.wait_for(lock, bounded_timeout(timeout_s), [this] {
    return state_ == AgentState::serving || state_ == AgentState::refused || state_ == AgentState::stopped;
  });
  return state_ == AgentState::serving;
}

std::string AgentLink::refusal() const {
  const std::lock_guard lock(mutex_);
  return refusal_;
}

std::string AgentLink::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

std::uint64_t AgentLink::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}

HostProgress AgentLink::host() const {
  const std::lock_guard lock(mutex_);
  return host_;
}

std::uint64_t AgentLink::ops_rejected() const {
  const std::lock_guard lock(mutex_);
  return ops_rejected_;
}

}  // namespace flexkv
