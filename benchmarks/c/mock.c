/* A mock upstream that costs next to nothing: one thread, epoll.
 *
 *   mock PORT TOKENS        (PORT 0 takes a free one; prints "port N" when it listens)
 *
 * Every request gets a canned chat completion of about 600 bytes with usage. A body with "stream":true gets TOKENS events
 * instead, the first one at once and then one every max_tokens milliseconds (a field that every gateway passes on), each an
 * HTTP chunk of its own whose content is "@" and the time of sending (CLOCK_MONOTONIC, ns); then usage and [DONE].
 * Streams that wait for their next event form a queue: it is in the order of time while all have the same interval, and
 * a benchmark never mixes intervals. A request body needs a content-length.
 * SIGTERM ends it with one line of JSON: what it sent, and streams whose client left before their end.
 */
#include "bench.h"
#include <signal.h>

#define HEAD_ROOM 65536
#define EVENTS 512

struct connection {
    int fd;
    char *in;
    size_t used, room;
    int64_t due_ns, interval_ns;
    long sent;                         /* events of the running stream; -1: none runs */
    struct connection *next, *before;  /* in the queue of streams */
};

static struct connection *first, *last;
static long tokens, replies, streams, streams_done, streams_left, events_sent;
static volatile sig_atomic_t ending;

static const char REPLY_BODY[] =
    "{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1704067200,\"model\":\"mock\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"The lantern over the harbor has burned since the "
    "first ship came home, and nobody remembers who lit it. Some say the wind keeps it, some say the tide; the keeper only "
    "smiles, trims the wick, and sets a second cup of tea on the sill.\",\"refusal\":null},\"logprobs\":null,"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":180,\"completion_tokens\":48,\"total_tokens\":228},"
    "\"system_fingerprint\":\"fp_mock\"}";
static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
static const char EVENT[] =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1704067200,\"model\":\"mock\","
    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"@%lld \"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char STREAM_END[] =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1704067200,\"model\":\"mock\","
    "\"choices\":[],\"usage\":{\"prompt_tokens\":180,\"completion_tokens\":48,\"total_tokens\":228}}\n\ndata: [DONE]\n\n";

static void enqueue(struct connection *c) {
    c->next = NULL;
    c->before = last;
    if (last) last->next = c;
    else first = c;
    last = c;
}

static void dequeue(struct connection *c) {
    if (c->before) c->before->next = c->next;
    else first = c->next;
    if (c->next) c->next->before = c->before;
    else last = c->before;
}

static void hang_up(struct connection *c) {
    if (c->sent >= 0) {
        dequeue(c);
        streams_left++;
    }
    close(c->fd);
    free(c->in);
    free(c);
}

/* A peer that takes nothing any more loses its connection: what is sent here always fits a socket's buffer otherwise. */
static int say(struct connection *c, const char *data, size_t size) {
    return send(c->fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* One event, behind the head if it is the first. False: the connection is gone. */
static int say_event(struct connection *c, int64_t now) {
    char event[sizeof EVENT + 32], out[2048];
    int size = snprintf(event, sizeof event, EVENT, (long long)now);
    int begun = snprintf(out, sizeof out, "%s%x\r\n%s\r\n", c->sent ? "" : STREAM_HEAD, size, event);
    if (++c->sent == tokens)
        begun += snprintf(out + begun, sizeof out - begun, "%zx\r\n%s\r\n0\r\n\r\n", sizeof STREAM_END - 1, STREAM_END);
    dequeue(c);
    if (!say(c, out, (size_t)begun)) {
        c->sent = -1;
        streams_left++;
        hang_up(c);
        return 0;
    }
    events_sent++;
    if (c->sent == tokens) {
        streams_done++;
        c->sent = -1;
        return 1;
    }
    c->due_ns = (c->sent == 1 ? now : c->due_ns) + c->interval_ns;
    enqueue(c);
    return 1;
}

static int answer(struct connection *c, const char *body, size_t size) {
    static char reply[sizeof REPLY_BODY + 256];
    static int reply_size;
    if (memmem(body, size, "\"stream\":true", 13) || memmem(body, size, "\"stream\": true", 14)) {
        char *interval = memmem(body, size, "\"max_tokens\":", 13);
        c->interval_ns = (interval ? strtol(interval + 13, NULL, 10) : 50) * NS_PER_MS;
        c->sent = 0;
        streams++;
        enqueue(c);
        return say_event(c, now_ns());
    }
    if (!reply_size)
        reply_size = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                              sizeof REPLY_BODY - 1, REPLY_BODY);
    replies++;
    if (say(c, reply, (size_t)reply_size)) return 1;
    hang_up(c);
    return 0;
}

/* Answers every request that is complete. */
static void answer_all(struct connection *c) {
    size_t begun = 0;
    while (begun < c->used && c->sent < 0) {
        char *head = c->in + begun, *end = memmem(head, c->used - begun, "\r\n\r\n", 4);
        if (!end) break;
        *end = 0;
        char *length = strcasestr(head, "\r\ncontent-length:");
        size_t body_size = length ? strtoul(length + 17, NULL, 10) : 0, head_size = (size_t)(end + 4 - head);
        *end = '\r';
        if (c->used - begun < head_size + body_size) break;
        begun += head_size + body_size;
        if (!answer(c, end + 4, body_size)) return;
    }
    memmove(c->in, c->in + begun, c->used - begun);
    c->used -= begun;
}

static void hear(struct connection *c) {
    if (c->room - c->used < HEAD_ROOM) {
        c->room = c->room * 2 + HEAD_ROOM;
        c->in = must(realloc(c->in, c->room));
    }
    ssize_t got = recv(c->fd, c->in + c->used, c->room - c->used - 1, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        hang_up(c);
        return;
    }
    c->used += (size_t)got;
    c->in[c->used] = 0; /* so that numbers in a body end somewhere */
    answer_all(c);
}

static void welcome(int epoll, int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = must(calloc(1, sizeof *c));
        c->fd = fd;
        c->sent = -1;
        no_delay(fd);
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

static void end(int signal) {
    (void)signal;
    ending = 1;
}

int main(int count, char **words) {
    if (count != 3) {
        fprintf(stderr, "usage: mock PORT TOKENS\n");
        return 2;
    }
    tokens = atol(words[2]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, epoll = epoll_create1(0);
    struct sockaddr_in address = loopback(atoi(words[1]));
    socklen_t size = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    struct sigaction on_end = {.sa_handler = end};
    sigaction(SIGTERM, &on_end, NULL);
    while (!ending) {
        struct epoll_event events[EVENTS];
        int ready = wait_until(epoll, events, EVENTS, first ? first->due_ns : -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) hear(events[i].data.ptr);
            else welcome(epoll, listener);
        }
        int64_t now = now_ns();
        while (first && first->due_ns <= now) say_event(first, now);
    }
    printf("{\"replies\":%ld,\"streams\":%ld,\"streams_done\":%ld,\"streams_left\":%ld,\"events\":%ld}\n", replies, streams, streams_done,
           streams_left, events_sent);
    return 0;
}
