/* A closed-loop load generator: one thread, epoll, raw HTTP/1.1 on kept connections to a port of loopback.
 *
 *   loadgen requests PORT CONNECTIONS WARMUP_S SECONDS REQUEST_FILE COUNT     one request after another on each connection
 *   loadgen streams  PORT STREAMS     WARMUP_S SECONDS REQUEST_FILE COUNT     one stream on each connection, until all have ended
 *
 * REQUEST_FILE holds COUNT whole HTTP requests of one size, which are sent in turn, as they are. Prints "begin" and "end" around the seconds that are measured
 * (whoever measures CPU time reads it at these lines), then one line of JSON. Streams start evenly over the first
 * second of the warm-up; each event of theirs carries "@" and the time when it was sent (see mock.c).
 * Latencies are µs. `delay_us` is from the upstream's sending to the arrival here: the largest is the longest stall.
 * `all_events` counts the warm-up too, `streams_done` streams that came to their [DONE] and to the end of their framing.
 */
#include "bench.h"

#define EVENTS 512
#define READ_BYTES 65536
#define KEPT_BYTES 4096 /* an incomplete line or head may be this long */
#define STATUSES 600

struct connection {
    int fd;
    const char *what;  /* the request */
    size_t sent;       /* of it */
    int64_t begun_ns;  /* when the request was begun */
    int64_t left;      /* bytes of the reply that are still to come; -1: its head is not complete; -2: until the last chunk */
    int status, events, done;
    long chunk;        /* of a stream: bytes of this chunk that are still to come */
    long chunk_size;   /* as far as its line was read; -1: no digit yet */
    size_t kept;
    char in[KEPT_BYTES];
};

static int port, streaming, epoll, measuring;
static char *requests;
static size_t request_size, request_count, requests_begun;
static long replies, statuses[STATUSES], broken, reconnects, events_seen, all_events, streams_done;
static struct numbers latencies, delays, first_tokens;

/* Sends what is left of the request; `watched`: the connection waits for room to write. */
static void push(struct connection *c, int watched) {
    while (c->sent < request_size) {
        ssize_t size = send(c->fd, c->what + c->sent, request_size - c->sent, MSG_NOSIGNAL);
        if (size < 0) {
            if (!watched) watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, c);
            return;
        }
        c->sent += (size_t)size;
    }
    if (watched) watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
}

static void ask(struct connection *c) {
    c->what = requests + requests_begun++ % request_count * request_size;
    c->sent = c->kept = 0;
    c->left = c->chunk_size = -1;
    c->chunk = 0;
    c->events = c->done = 0;
    c->begun_ns = now_ns();
    push(c, 0);
}

static void dial(struct connection *c) {
    struct sockaddr_in address = loopback(port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    no_delay(c->fd);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) die("connect");
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
    ask(c);
}

static void redial(struct connection *c) {
    close(c->fd);
    reconnects += measuring;
    dial(c);
}

static void complete(struct connection *c) {
    if (measuring) {
        replies++;
        statuses[c->status]++;
        if (!streaming) numbers_add(&latencies, (uint32_t)((now_ns() - c->begun_ns) / 1000));
    }
    ask(c);
}

/* Reads the status and the framing of a complete head. */
static void read_head(struct connection *c, char *head, char *end) {
    *end = 0;
    int status = strncmp(head, "HTTP/1.1 ", 9) ? 0 : atoi(head + 9);
    c->status = status > 0 && status < STATUSES ? status : 0;
    char *length = strcasestr(head, "\r\ncontent-length:");
    c->left = length ? strtol(length + 17, NULL, 10) : -2;
    *end = '\r';
}

/* A whole reply: counted bytes, or chunks of which only the end is looked for (a reply is the last thing on its connection). */
static void hear_reply(struct connection *c, char *data, size_t size) {
    if (c->left == -1) {
        char *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end) {
            if (size < KEPT_BYTES) memcpy(c->in, data, c->kept = size);
            return;
        }
        read_head(c, data, end);
        size -= (size_t)(end + 4 - data);
        data = end + 4;
    }
    if (c->left >= 0) {
        c->left -= (int64_t)size;
        if (c->left <= 0) complete(c);
    } else if (size >= 5 && !memcmp(data + size - 5, "0\r\n\r\n", 5)) {
        complete(c);
    }
}

static void hear_line(struct connection *c, const char *line, int64_t now) {
    const char *stamp = strchr(line, '@');
    if (!stamp) {
        c->done |= !strncmp(line, "data: [DONE]", 12);
        return;
    }
    all_events++;
    if (!c->events++) numbers_add(&first_tokens, (uint32_t)((now - c->begun_ns) / 1000));
    if (measuring) {
        events_seen++;
        numbers_add(&delays, (uint32_t)((now - strtoll(stamp + 1, NULL, 10)) / 1000));
    }
}

/* Bytes of the body. A line that is not complete waits in `in`; one that does not fit there is no event of the mock. */
static void hear_body(struct connection *c, char *data, size_t size, int64_t now) {
    while (size) {
        char *end = memchr(data, '\n', size);
        size_t part = end ? (size_t)(end - data) : size;
        if (c->kept + part >= KEPT_BYTES) c->kept = 0;
        else {
            memcpy(c->in + c->kept, data, part);
            c->kept += part;
        }
        if (!end) return;
        c->in[c->kept] = 0;
        hear_line(c, c->in, now);
        c->kept = 0;
        size -= part + 1;
        data = end + 1;
    }
}

static int hex_value(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    digit |= 32;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* A chunked stream of events. A gateway may cut its chunks elsewhere than the mock did, also within a line. */
static void hear_stream(struct connection *c, char *data, size_t size) {
    int64_t now = now_ns();
    if (c->left == -1) {
        char *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end) {
            if (size < KEPT_BYTES) memcpy(c->in, data, c->kept = size);
            return;
        }
        read_head(c, data, end);
        if (c->status != 200) broken++;
        c->left = -2;
        size -= (size_t)(end + 4 - data);
        data = end + 4;
    }
    while (size) {
        if (c->chunk) {
            size_t part = size < (size_t)c->chunk ? size : (size_t)c->chunk;
            hear_body(c, data, part, now);
            c->chunk -= (long)part;
            data += part;
            size -= part;
            continue;
        }
        int value = hex_value(*data);
        if (value >= 0) c->chunk_size = (c->chunk_size < 0 ? 0 : c->chunk_size * 16) + value;
        if (*data == '\n' && c->chunk_size >= 0) {
            c->chunk = c->chunk_size;
            streams_done += !c->chunk && c->done;
            c->chunk_size = -1;
        }
        data++;
        size--;
    }
}

static void hear(struct connection *c) {
    static char data[KEPT_BYTES + READ_BYTES + 1];
    size_t kept = c->left == -1 ? c->kept : 0; /* of a head that is not complete */
    memcpy(data, c->in, kept);
    ssize_t got = recv(c->fd, data + kept, READ_BYTES, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        broken += measuring || streaming;
        redial(c);
        return;
    }
    size_t size = kept + (size_t)got;
    c->kept -= kept;
    data[size] = 0;
    if (streaming) hear_stream(c, data, size);
    else hear_reply(c, data, size);
}

static void read_request(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    requests = must(malloc(size));
    if (fread(requests, 1, size, file) != size || size % request_count) die(path);
    request_size = size / request_count;
    fclose(file);
}

static void report(double seconds) {
    numbers_sort(&latencies);
    numbers_sort(&delays);
    numbers_sort(&first_tokens);
    printf("{\"seconds\":%.6f,\"replies\":%ld,\"broken\":%ld,\"reconnects\":%ld,\"status\":{", seconds, replies, broken, reconnects);
    const char *comma = "";
    for (int status = 0; status < STATUSES; status++)
        if (statuses[status]) {
            printf("%s\"%d\":%ld", comma, status, statuses[status]);
            comma = ",";
        }
    printf("},\"latency_us\":{\"p50\":%u,\"p99\":%u,\"max\":%u},", quantile(&latencies, .5), quantile(&latencies, .99), quantile(&latencies, 1));
    printf("\"events\":%ld,\"delay_us\":{\"p50\":%u,\"p99\":%u,\"max\":%u},", events_seen, quantile(&delays, .5), quantile(&delays, .99), quantile(&delays, 1));
    printf("\"streams_begun\":%zu,\"streams_done\":%ld,\"all_events\":%ld,", first_tokens.count, streams_done, all_events);
    printf("\"ttft_us\":{\"p50\":%u,\"p99\":%u}}\n", quantile(&first_tokens, .5), quantile(&first_tokens, .99));
}

int main(int count, char **words) {
    if (count != 8 || (request_count = (size_t)atol(words[7])) < 1) {
        fprintf(stderr, "usage: loadgen requests|streams PORT CONNECTIONS WARMUP_S SECONDS REQUEST_FILE COUNT\n");
        return 2;
    }
    streaming = !strcmp(words[1], "streams");
    port = atoi(words[2]);
    int connections = atoi(words[3]), dialed = 0;
    int64_t warmup_ns = (int64_t)(atof(words[4]) * NS_PER_S), seconds_ns = (int64_t)(atof(words[5]) * NS_PER_S);
    read_request(words[6]);
    epoll = epoll_create1(0);
    struct connection *all = must(calloc((size_t)connections, sizeof *all));
    int64_t start = now_ns(), begin = start + warmup_ns, end = begin + seconds_ns, now = start;
    int64_t pause_ns = streaming ? NS_PER_S / connections : 0;
    while ((now = now_ns()) < end && streams_done < connections) {
        while (dialed < connections && now >= start + dialed * pause_ns) dial(&all[dialed++]);
        if (!measuring && now >= begin) {
            measuring = 1;
            begin = now;
            puts("begin");
            fflush(stdout);
        }
        int64_t until = measuring ? end : begin;
        if (dialed < connections && start + dialed * pause_ns < until) until = start + dialed * pause_ns;
        struct epoll_event events[EVENTS];
        int ready = wait_until(epoll, events, EVENTS, until);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) push(c, 1);
            if (events[i].events & ~(uint32_t)EPOLLOUT) hear(c);
        }
    }
    puts("end");
    fflush(stdout);
    report((double)(now_ns() - begin) / NS_PER_S);
    return 0;
}
