/* A program for guests: tries what a step must not be able to do, and tells what the kernel said.
 *
 *   probe writable          files below /proc and /sys that open for writing, and those that would take it
 *   probe descriptors       open descriptors
 *   probe calls             system calls with the errors they end with
 *   probe connect A P ...   whether port P of the addresses A answers
 *   probe ask               what the name server of /etc/resolv.conf answers to a datagram
 *   probe eat N             touches N MiB of memory
 *   probe fork N            starts N processes at once
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void walk(int folder, const char *path, int depth) {
  DIR *dir = fdopendir(folder);
  if (!dir) return;
  struct dirent *entry;
  while ((entry = readdir(dir))) {
    const char *name = entry->d_name;
    if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
    /* A process owns what is below its own folder. */
    if (depth == 0 && !strcmp(path, "/proc") && name[0] >= '0' && name[0] <= '9') continue;
    char full[8192];
    snprintf(full, sizeof full, "%s/%s", path, name);
    struct stat found;
    if (fstatat(dirfd(dir), name, &found, AT_SYMLINK_NOFOLLOW)) continue;
    if (S_ISDIR(found.st_mode)) {
      int below = openat(dirfd(dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      if (below >= 0) walk(below, full, depth + 1);
    } else if (!S_ISLNK(found.st_mode)) {
      int file = openat(dirfd(dir), name, O_WRONLY | O_NONBLOCK | O_NOFOLLOW);
      if (file >= 0) {
        /* Nothing is written: the address is none. The kernel says so where it has something that would take it. */
        if (write(file, (void *)1, 1) >= 0 || (errno != EIO && errno != EINVAL)) printf("writable %s\n", full);
        printf("opens %s\n", full);
        close(file);
      } else if (errno != EACCES && errno != EPERM && errno != EROFS && errno != ENOENT && errno != EIO &&
                 errno != EINVAL && errno != ENXIO) {
        printf("odd %s %d\n", full, errno);
      }
      static int tried;
      tried++;
      if (tried == 500) puts("tried many");
    }
  }
  closedir(dir);
}

static void call(const char *name, long number, long a, long b, long c, long d, long e) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    errno = 0;
    long got = syscall(number, a, b, c, d, e, 0);
    int why = errno;
    /* What clone made is not the one that tells. */
    if (number == SYS_clone && got == 0) _exit(0);
    printf("%s %s\n", name, got >= 0 ? "succeeds" : why == EPERM ? "EPERM" : why == ENOSYS ? "ENOSYS" : "other");
    fflush(stdout);
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) printf("%s killed\n", name);
}

static void calls(void) {
  static char text[64] = "x";
  static uint64_t zero[32];
  static int value = 1;
  struct { uint64_t flags, rest[10]; } three = {CLONE_NEWUSER, {0}};
  struct { uint32_t kind, size; uint64_t rest[16]; } event = {1, 128, {0}};
  call("unshare user", SYS_unshare, CLONE_NEWUSER, 0, 0, 0, 0);
  call("unshare mount", SYS_unshare, CLONE_NEWNS, 0, 0, 0, 0);
  call("unshare network", SYS_unshare, CLONE_NEWNET, 0, 0, 0, 0);
  call("clone user", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  call("clone network", SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0);
  call("clone3 user", SYS_clone3, (long)&three, sizeof three, 0, 0, 0);
  call("setns", SYS_setns, -1, 0, 0, 0, 0);
  call("mount", SYS_mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0, 0);
  call("umount2", SYS_umount2, (long)"/proc/sys", 2, 0, 0, 0);
  call("pivot_root", SYS_pivot_root, (long)"/", (long)"/", 0, 0, 0);
  call("fsopen", 430, (long)"tmpfs", 0, 0, 0, 0);
  call("open_tree", 428, -100, (long)"/", 1, 0, 0);
  call("mount_setattr", 442, -100, (long)"/", 0, (long)zero, 32);
  call("keyctl", SYS_keyctl, 0, -3, 0, 0, 0);
  call("add_key", SYS_add_key, (long)"user", (long)"a", (long)text, 1, -3);
  call("request_key", SYS_request_key, (long)"user", (long)"a", 0, 0, 0);
  call("bpf", SYS_bpf, 0, (long)zero, 64, 0, 0);
  call("perf_event_open", SYS_perf_event_open, (long)&event, 0, -1, -1, 0);
  call("userfaultfd", SYS_userfaultfd, 1, 0, 0, 0, 0);
  call("kexec_load", SYS_kexec_load, 0, 0, 0, 0, 0);
  call("init_module", SYS_init_module, (long)text, 1, (long)"", 0, 0);
  call("finit_module", SYS_finit_module, -1, (long)"", 0, 0, 0);
  call("delete_module", SYS_delete_module, (long)"none", 0, 0, 0, 0);
  call("open_by_handle_at", SYS_open_by_handle_at, -1, (long)zero, 0, 0, 0);
  call("kcmp", SYS_kcmp, getpid(), getpid(), 0, 1, 1);
  call("personality unknown", SYS_personality, 0xdead, 0, 0, 0, 0);
  call("personality no random", SYS_personality, 0x40000, 0, 0, 0, 0);
  call("io_uring_setup", 425, 1, (long)zero, 0, 0, 0);
  call("swapon", SYS_swapon, (long)"/none", 0, 0, 0, 0);
  call("reboot", SYS_reboot, 0, 0, 0, 0, 0);
  call("settimeofday", SYS_settimeofday, 1, 1, 0, 0, 0);
  call("clock_settime", SYS_clock_settime, 0, 1, 0, 0, 0);
  call("sethostname", SYS_sethostname, (long)text, 1, 0, 0, 0);
  call("setdomainname", SYS_setdomainname, (long)text, 1, 0, 0, 0);
  call("acct", SYS_acct, (long)"/none", 0, 0, 0, 0);
  call("quotactl", SYS_quotactl, 0, 0, 0, 0, 0);
  call("syslog", SYS_syslog, 10, 0, 0, 0, 0);
  call("vhangup", SYS_vhangup, 0, 0, 0, 0, 0);
  call("fanotify_init", SYS_fanotify_init, 0, 0, 0, 0, 0);
  call("pidfd_getfd", 438, -1, 0, 0, 0, 0);
  call("process_madvise", 440, -1, 0, 0, 0, 0);
  call("newer than all", 5000, 0, 0, 0, 0, 0);
#ifdef SYS_iopl
  call("iopl", SYS_iopl, 3, 0, 0, 0, 0);
  call("ioperm", SYS_ioperm, 0x80, 1, 1, 0, 0);
#endif
  call("socket vsock", SYS_socket, 40, SOCK_STREAM, 0, 0, 0);
  call("socket packet", SYS_socket, 17, SOCK_RAW, 0x300, 0, 0);
  call("socket packet datagram", SYS_socket, 17, SOCK_DGRAM | SOCK_CLOEXEC, 0x300, 0, 0);
  call("socket raw", SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP, 0, 0);
  call("socket raw six", SYS_socket, AF_INET6, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_ICMPV6, 0, 0);
  call("socket alg", SYS_socket, 38, SOCK_SEQPACKET, 0, 0, 0);
  call("socketpair vsock", SYS_socketpair, 40, SOCK_STREAM, 0, (long)zero, 0);
  /* What builds need. */
  call("fork", SYS_clone, SIGCHLD, 0, 0, 0, 0);
  call("socket stream", SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0);
  call("socket datagram", SYS_socket, AF_INET6, SOCK_DGRAM, 0, 0, 0);
  call("socket unix", SYS_socket, AF_UNIX, SOCK_SEQPACKET, 0, 0, 0);
  call("socket netlink", SYS_socket, AF_NETLINK, SOCK_RAW, 0, 0, 0);
  call("personality same", SYS_personality, 0xffffffff, 0, 0, 0, 0);
  call("chroot", SYS_chroot, (long)"/", 0, 0, 0, 0);
  (void)value;
}

static void reach(const char *address, const char *port) {
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
  int is_four = inet_pton(AF_INET, address, &four.sin_addr) == 1;
  if (!is_four && inet_pton(AF_INET6, address, &six.sin6_addr) != 1) exit(2);
  int link = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
  /* Link-local addresses need a device; the second one is the way out. */
  if (IN6_IS_ADDR_LINKLOCAL(&six.sin6_addr)) six.sin6_scope_id = 2;
  int got = connect(link, is_four ? (void *)&four : (void *)&six, is_four ? sizeof four : sizeof six);
  if (got && errno == EINPROGRESS) {
    struct pollfd wait = {link, POLLOUT, 0};
    int why = ETIMEDOUT;
    socklen_t size = sizeof why;
    if (poll(&wait, 1, 3000) == 1) getsockopt(link, SOL_SOCKET, SO_ERROR, &why, &size);
    got = why ? -1 : 0;
    errno = why;
  }
  printf("%s %s\n", address, got ? "no" : "answers");
}

static void ask(void) {
  char line[256], address[256] = "", answer[64] = "nothing";
  FILE *file = fopen("/etc/resolv.conf", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "nameserver %255s", address) == 1) break;
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53)};
  if (inet_pton(AF_INET, address, &server.sin_addr) != 1) exit(2);
  int link = socket(AF_INET, SOCK_DGRAM, 0);
  for (int i = 0; i < 5; i++) {
    sendto(link, "question", 8, 0, (void *)&server, sizeof server);
    struct pollfd wait = {link, POLLIN, 0};
    if (poll(&wait, 1, 2000) != 1) continue;
    ssize_t size = recv(link, answer, sizeof answer - 1, 0);
    if (size > 0) answer[size] = 0;
    break;
  }
  puts(answer);
}

int main(int count, char **words) {
  if (count < 2) return 2;
  if (!strcmp(words[1], "writable")) {
    const char *roots[] = {"/proc", "/sys"};
    for (int i = 0; i < 2; i++) walk(open(roots[i], O_RDONLY | O_DIRECTORY), roots[i], 0);
    puts("walked");
  } else if (!strcmp(words[1], "descriptors")) {
    for (int i = 0; i < 4096; i++)
      if (fcntl(i, F_GETFD) >= 0) printf("%d\n", i);
  } else if (!strcmp(words[1], "calls")) {
    calls();
  } else if (!strcmp(words[1], "ask")) {
    ask();
  } else if (!strcmp(words[1], "connect")) {
    for (int i = 2; i + 1 < count; i += 2) reach(words[i], words[i + 1]);
  } else if (!strcmp(words[1], "eat") && count == 3) {
    for (int i = 0; i < atoi(words[2]); i++) {
      char *part = malloc(1 << 20);
      if (part) memset(part, i, 1 << 20);
    }
    puts("eaten");
  } else if (!strcmp(words[1], "fork") && count == 3) {
    int failures = 0;
    for (int i = 0; i < atoi(words[2]); i++) {
      pid_t child = fork();
      if (child == 0) pause();
      if (child < 0) failures++;
    }
    printf("refused %s\n", failures ? "some" : "none");
    return failures ? 1 : 0;
  } else {
    return 2;
  }
  return 0;
}
