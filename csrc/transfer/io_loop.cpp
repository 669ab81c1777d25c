// The loop, the timers and the life of connections. What peers say is in io_frames.cpp.
#include "transfer/io_loop.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <limits>
#include <new>
#include <system_error>

#include "transfer/os_error.h"

namespace flexkv {

namespace {

constexpr double greeting_timeout_s = 5.0;
constexpr double accept_pause_s = 0.1;
constexpr std::size_t max_greetings = 64;
constexpr int max_accepts_per_turn = 16;
constexpr int max_reads_at_once = 64;
constexpr int max_epoll_events = 64;
constexpr int max_loop_errors = 8;
constexpr double max_sleep_s = 3600;

constexpr std::uint64_t listener_tag = 0;
constexpr std::uint64_t wake_tag = 1;
std::uint64_t socket_tag(std::uint64_t id) { return id << 1; }
std::uint64_t pidfd_tag(std::uint64_t id) { return id << 1 | 1; }

}  // namespace

IoLoop::IoLoop(EngineState& state, Fd listener)
    : state_(state), listener_(std::move(listener)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_.valid()) throw_errno(errno, "epoll_create1");
  add_to_epoll(listener_.get(), listener_tag);
  add_to_epoll(state_.io_event.fd(), wake_tag);
}

void IoLoop::add_to_epoll(int fd, std::uint64_t tag) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    throw_errno(errno, "epoll_ctl");
  }
}

// The top of a thread: out of memory, or an error of ours. What is done about it can fail, too; it is tried again.
void IoLoop::run() {
  std::string error;
  for (int num_errors = 0; num_errors < max_loop_errors; ++num_errors) {
    try {
      if (num_errors > 0) mark_broken(error);
      while (turn()) {
      }
      break;
    } catch (const std::exception& caught) {
      remember(caught, error);
    }
  }
  const std::lock_guard lock(state_.mutex);
  if (state_.phase == EnginePhase::serving) state_.phase = EnginePhase::broken;
  state_.io_ended = true;
  state_.changed.notify_all();
  for (const auto& [id, connection] : connections_) {
    if (connection.in_this_process() && connection.state != AgentConnection::State::greeting) {
      state_.all_disconnected = false;
    }
  }
}

// Keeps the first error's text, as far as there is memory for it.
void IoLoop::remember(const std::exception& caught, std::string& error) noexcept {
  try {
    if (error.empty()) error = caught.what();
  } catch (const std::bad_alloc&) {
    error.clear();
  }
}

// Nothing new is taken any more, but peers are listened to: what they hold is released when they let go of it.
void IoLoop::mark_broken(const std::string& error) {
  const std::lock_guard lock(state_.mutex);
  if (state_.phase == EnginePhase::serving) state_.phase = EnginePhase::broken;
  ++state_.protocol_errors;
  state_.last_protocol_error = "the transfer engine's I/O thread met an error: " + error;
  state_.graphs.cancel_all();
  state_.publish();
  state_.changed.notify_all();
}

bool IoLoop::turn() {
  if (!expire_and_check_exit()) return false;
  pump_all();
  pump_disk();
  std::array<epoll_event, max_epoll_events> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), max_epoll_events, publish_and_time_sleep());
  if (count < 0 && errno != EINTR) throw_errno(errno, "epoll_wait");
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    dispatch(event.data.u64, event.events);
  }
  drop_overdue_greetings();
  return true;
}

// False when the loop has to end.
bool IoLoop::expire_and_check_exit() {
  const double now_s = monotonic_s();
  double exit_deadline_s = 0;
  {
    const std::lock_guard lock(state_.mutex);
    state_.graphs.expire(now_s);
    if (state_.phase != EnginePhase::disconnecting) return true;
    exit_deadline_s = state_.exit_deadline_s;
  }
  if (!disconnecting_) disconnect_all();
  return !connections_.empty() && now_s < exit_deadline_s;
}

int IoLoop::publish_and_time_sleep() {
  const double now_s = monotonic_s();
  double next_s = now_s + max_sleep_s;
  if (accept_again_s_ > 0 && accept_again_s_ <= now_s && !disconnecting_) {
    add_to_epoll(listener_.get(), listener_tag);
    accept_again_s_ = 0;
  }
  if (accept_again_s_ > 0 && !disconnecting_) next_s = std::min(next_s, accept_again_s_);
  for (const auto& [id, connection] : connections_) {
    if (connection.state == AgentConnection::State::greeting) {
      next_s = std::min(next_s, connection.greeting_deadline_s());
    }
  }
  const std::lock_guard lock(state_.mutex);
  state_.publish();
  if (disconnecting_) next_s = std::min(next_s, state_.exit_deadline_s);
  next_s = std::min(next_s, state_.graphs.next_deadline_s().value_or(next_s));
  return static_cast<int>(std::ceil(std::max(0.0, next_s - now_s) * 1e3));
}

void IoLoop::dispatch(std::uint64_t tag, std::uint32_t events) {
  if (tag == listener_tag) {
    accept_agents();
    return;
  }
  if (tag == wake_tag) {
    state_.io_event.drain();
    return;
  }
  const Id id = tag >> 1;
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;  // dropped by an earlier event of this turn
  if (tag == pidfd_tag(id)) {
    on_peer_death(id, found->second);
  } else {
    on_socket(id, found->second, events);
  }
}

void IoLoop::accept_agents() {
  for (int i = 0; i < max_accepts_per_turn; ++i) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      admit(std::move(socket));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      record_error("accept: " + std::generic_category().message(errno));
      (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr);
      accept_again_s_ = monotonic_s() + accept_pause_s;
    }
    return;
  }
}

void IoLoop::admit(Fd socket) {
  const std::optional<PeerCredentials> peer = peer_credentials(socket.get());
  if (!peer || peer->uid != ::geteuid()) {
    record_error("a peer of another user (" + (peer ? std::to_string(peer->uid) : "unknown") + ") was turned away");
  } else if (peer->pid == 0) {
    refuse(socket.get(), "its process is not visible from the engine's pid namespace");
  } else {
    try {
      greet(std::move(socket), peer->pid);
    } catch (const std::system_error& error) {
      // Without pidfds it would never work; else it has ended, or we are out of descriptors: then it tries again.
      const int code = error.code().value();
      if (code == ENOSYS || code == EPERM || code == EACCES) refuse(socket.get(), error.what());
      if (code != ESRCH) record_error(std::string("a peer could not be served: ") + error.what());
    }
  }
}

void IoLoop::greet(Fd&& socket, pid_t pid) {
  Fd pidfd;
  if (pid != ::getpid()) pidfd = open_peer_pidfd(socket.get(), pid);
  limit_greetings();
  const Id id = next_id_++;
  add_to_epoll(socket.get(), socket_tag(id));
  if (pidfd.valid()) add_to_epoll(pidfd.get(), pidfd_tag(id));
  connections_.try_emplace(id, std::move(socket), std::move(pidfd), pid, monotonic_s() + greeting_timeout_s);
}

// Makes room for one more: the oldest is the least likely to be an agent, which registers as soon as it has connected.
void IoLoop::limit_greetings() {
  const auto greets = [](const auto& entry) { return entry.second.state == AgentConnection::State::greeting; };
  if (static_cast<std::size_t>(std::count_if(connections_.begin(), connections_.end(), greets)) < max_greetings) return;
  const auto oldest = std::ranges::find_if(connections_, greets);
  break_off(oldest->first, oldest->second, "too many connections without REGISTER");
}

void IoLoop::drop_overdue_greetings() {
  const double now_s = monotonic_s();
  for (auto entry = connections_.begin(); entry != connections_.end();) {
    const Id id = entry->first;
    AgentConnection& connection = entry->second;
    ++entry;  // break_off erases a greeting
    if (connection.state == AgentConnection::State::greeting && connection.greeting_deadline_s() <= now_s) {
      break_off(id, connection, "no REGISTER within the time");
    }
  }
}

void IoLoop::on_socket(Id id, AgentConnection& connection, std::uint32_t events) {
  if (connection.state == AgentConnection::State::lost) {
    if (connection.in_this_process() && (events & EPOLLHUP) != 0) release(id, connection);  // it has closed its end
    return;
  }
  if ((events & EPOLLOUT) != 0) connection.blocked = false;  // pump_all follows
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) (void)receive(id, connection);
}

void IoLoop::on_peer_death(Id id, AgentConnection& connection) {
  if (connection.state == AgentConnection::State::lost) {
    release(id, connection);
    return;
  }
  read_out(id, connection);  // what it acknowledged before its end counts
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  if (found->second.state == AgentConnection::State::lost) {
    release(id, found->second);
  } else {
    lose(id, found->second, true, "its process has ended");
  }
}

// Takes what has come, within a bound. It may end the connection.
void IoLoop::read_out(Id id, AgentConnection& connection) {
  for (int i = 0; i < max_reads_at_once && receive(id, connection); ++i) {
  }
}

void IoLoop::break_off(Id id, AgentConnection& connection, const std::string& what) {
  std::string name = "agent in process " + std::to_string(connection.pid());
  if (connection.state == AgentConnection::State::registered) name += ", rank " + std::to_string(connection.rank);
  record_error(name + ": " + what + "; disconnected");
  lose(id, connection, false, "it broke the protocol: " + what);
}

// certain: the peer touches nothing any more.
void IoLoop::lose(Id id, AgentConnection& connection, bool certain, const std::string& reason) {
  if (connection.state != AgentConnection::State::registered) {
    connections_.erase(id);
    return;
  }
  const std::uint32_t rank = connection.rank;
  {
    const std::lock_guard lock(state_.mutex);
    const std::string name =
        "rank " + std::to_string(rank) + " (process " + std::to_string(connection.pid()) + ") was lost: ";
    state_.ranks.lose(rank);
    state_.graphs.executor_lost(rank, certain, name + reason);
    // With nothing in its hands there is nothing to wait for. An agent of this process is waited for at the end all the
    // same: it shares the pool's mapping.
    certain = certain || (!state_.graphs.holds_ops_of(rank) && !disconnecting_);
    state_.changed.notify_all();
  }
  connection.state = AgentConnection::State::lost;
  if (certain) {
    release(id, connection);
  } else if (connection.in_this_process()) {
    (void)::shutdown(connection.socket_fd(), SHUT_WR);  // it lets its copies end and closes: that is HUP here
    watch_socket(id, connection, 0);
  } else {
    connection.close_socket();  // the pidfd stays
  }
}

void IoLoop::release(Id id, AgentConnection& connection) {
  const std::uint32_t rank = connection.rank;
  connections_.erase(id);
  const std::lock_guard lock(state_.mutex);
  state_.graphs.executor_dead(rank);
  state_.ranks.free(rank);
}

void IoLoop::disconnect_all() {
  disconnecting_ = true;
  listener_.reset();
  for (auto entry = connections_.begin(); entry != connections_.end();) {
    const Id id = entry->first;
    AgentConnection& connection = entry->second;
    ++entry;
    if (connection.state == AgentConnection::State::registered)
      lose(id, connection, false, "the transfer engine stops");
    // Only an agent of this process, which uses the pool's own mapping, is waited for.
    const bool uses_mapping = connection.state == AgentConnection::State::lost && connection.in_this_process();
    if (!uses_mapping) connections_.erase(id);
  }
}

void IoLoop::watch_socket(Id id, const AgentConnection& connection, std::uint32_t events) {
  epoll_event event = {};
  event.events = events;
  event.data.u64 = socket_tag(id);
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.socket_fd(), &event);
}

void IoLoop::record_error(const std::string& error) {
  const std::lock_guard lock(state_.mutex);
  ++state_.protocol_errors;
  state_.last_protocol_error = error;
}

}  // namespace flexkv
