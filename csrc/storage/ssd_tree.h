// The directory tree of the SSD tier below one root: its names, its locks, what lies in it, and removal
// (docs/formats/ssd.md). Sub-directories are made, measured and removed under the tree's lock only; who serves from one
// holds that one's lock besides. Locks are flock(2) on files that are never written: the kernel lets them go with the
// process. Not for more than one thread.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "storage/ssd_format.h"
#include "transfer/socket.h"

namespace flexkv {

// Somebody serves from it, or holds so much of the capacity that no slot is left: it can be tried again later.
class SsdBusy : public std::runtime_error {
  using std::runtime_error::runtime_error;
};
// It cannot work as configured; `what` has the value and the fix.
class SsdConfigError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr const char* ssd_tree_name = "flexkv-ssd-v1";
inline constexpr const char* ssd_lock_name = "lock";
inline constexpr const char* ssd_records_name = "records";
inline constexpr const char* ssd_data_name = "data";

// 8 to 128 digits of lower-case hex: what a sub-directory is called.
[[nodiscard]] bool is_ssd_fingerprint(const std::string& name);

// Let go at its end, also when a forked child has the descriptor too. A killed process's lock lasts as long as such a
// child.
class SsdLock {
 public:
  ~SsdLock();
  SsdLock(SsdLock&& other) noexcept = default;
  SsdLock& operator=(SsdLock&& other) noexcept = default;
  SsdLock(const SsdLock&) = delete;
  SsdLock& operator=(const SsdLock&) = delete;

  // Makes the lock file when it is not there. nullopt: somebody else holds it. Never waits. Throws std::system_error,
  // or SsdConfigError where the file system has no locks or the lock is not a file.
  [[nodiscard]] static std::optional<SsdLock> take(const std::string& path);
  // Whether somebody holds the lock of that path; false when there is no such file. Has it shared for an instant.
  [[nodiscard]] static bool is_held(const std::string& path);
  // Notes that it was used now: the time of last use is the file's mtime. 0 or an errno.
  [[nodiscard]] int mark_used() const;

 private:
  explicit SsdLock(Fd file);
  Fd file_;
  pid_t owner_pid_;
};

// Checks the root and makes it (its last component only) and the tree in it. Returns the tree's path. Throws
// SsdConfigError or std::system_error.
[[nodiscard]] std::string make_ssd_tree(const std::string& root);
// The tree's path; empty when there is none. Changes nothing.
[[nodiscard]] std::string find_ssd_tree(const std::string& root);
// Makes the sub-directory durably; false when it was there. Throws as make_ssd_tree.
bool make_sub_directory(const std::string& tree, const std::string& fingerprint);
// Throws SsdConfigError when there is something at the path that is no regular file.
void check_regular_or_missing(const std::string& path);
// Makes the names in a directory durable. Throws std::system_error.
void sync_directory(const std::string& path);

struct SubDirectory {
  std::string fingerprint;
  std::string path;
  HeaderState state = HeaderState::empty;
  SsdHeader header;                   // when `state` is ok
  std::uint64_t footprint_bytes = 0;  // of its files, allocated or promised
  std::int64_t used_at_ns = 0;        // since 1970
};
// One sub-directory as it lies there. Opens its record file for reading only.
[[nodiscard]] SubDirectory look_at_sub_directory(const std::string& tree, const std::string& fingerprint);
// All that are called by a fingerprint, in the order of names. Throws std::system_error.
[[nodiscard]] std::vector<SubDirectory> sub_directories(const std::string& tree);

// Removes its files, data first, so that a half-removed one is known and takes no room, then itself unless it holds
// something that is not ours. REQUIRES: the caller has the locks of the tree and of it; its state is not foreign.
// Throws std::system_error.
void remove_sub_directory(const std::string& tree, const std::string& fingerprint);

}  // namespace flexkv
