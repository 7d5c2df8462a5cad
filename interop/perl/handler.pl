#!/usr/bin/env perl
# A handler without a NATS client: requests come on a bare socket, each task is worked on in a process of its own.
# Written from docs/first-handler.md and docs/protocol.md alone; the job itself is work.pm.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Encode 'encode_utf8';
use IO::Select;
use JSON::PP;
use MIME::Base64 'decode_base64';
use POSIX qw(strftime);
use Time::HiRes 'time';
use Time::Local 'timegm';
use nats;
use work;

my $AT_ONCE   = 64;
my $GRACE_S   = $ENV{AJ_GRACE_S} // 25;
my $MOST_TEXT = 4000;

my $type    = $ENV{AJ_TYPE} // 'email:new';
my $subject = $ENV{AJ_SUBJECT} || 'CHORIA_AJ.H.T.' . (length $type ? $type : 'catchall');
my $group   = $ENV{AJ_QUEUE_GROUP} || 'q';

my (%calls, @waiting);    # calls by the number of the child's pipe; requests that wait for room
my $stopping = 0;
$SIG{TERM} = $SIG{INT} = sub { $stopping ||= time };

my $id      = join '', map { ('A' .. 'Z', 'a' .. 'z', 0 .. 9)[ rand 62 ] } 1 .. 22;
my $started = strftime '%Y-%m-%dT%H:%M:%SZ', gmtime;
my %done    = (num_requests => 0, num_errors => 0, last_error => '', processing_time => 0);

my @asked_for = map { my $verb = $_; map { "\$SRV.$verb$_" } '', '.aj-handler', ".aj-handler.$id" } qw(PING INFO STATS);
my $nats = nats->new(
    url           => $ENV{NATS_URL} || 'nats://127.0.0.1:4222',
    subscriptions => [
        [ $subject, $group, \&request ],
        [ 'CHORIA_AJ.CI.*', '', \&cancel ],
        map { [ $_, '', \&show ] } @asked_for,
    ],
);

# Somebody wants to know who is there, and what he has done.
sub show {
    my ($on, $reply) = @_;
    my ($verb) = $on =~ /^\$SRV\.([A-Z]+)/;
    my %endpoint = (name => 'run', subject => $subject, queue_group => $group);
    my %all = (name => 'aj-handler', id => $id, version => '1.0.0', metadata => { 'aj.language' => 'perl' });
    $all{type} = 'io.nats.micro.v1.' . lc($verb) . '_response';
    if ($verb eq 'INFO') {
        $all{description} = 'Handles tasks';
        $all{endpoints} = [ { %endpoint, metadata => { 'aj.type' => $type } } ];
    }
    if ($verb eq 'STATS') {
        my $average = $done{num_requests} ? int $done{processing_time} / $done{num_requests} : 0;
        my %figures = (%done, processing_time => int $done{processing_time}, average_processing_time => $average);
        $all{started} = $started;
        $all{endpoints} = [ { %endpoint, %figures, data => { in_flight => scalar keys %calls } } ];
    }
    $nats->publish($reply, [], encode_json(\%all)) if length $reply;
    return;
}

sub request {
    my ($on, $reply, $pairs, $body) = @_;
    return if !length $reply;
    my %headers = map { @$_ } reverse @$pairs;    # of several with a name the first counts
    my %found   = map { lc $_ => $headers{$_} } keys %headers;
    my %call = (reply => $reply, headers => \%headers, found => \%found, body => $body, until => deadline(\%found), began => time);
    @waiting < 10_000 ? push @waiting, \%call : answer(\%call, { error => 'too many requests wait' });
    begin() while @waiting && keys %calls < $AT_ONCE;
    return;
}

# When the reply must be in, in seconds since the epoch.
sub deadline {
    my ($found) = @_;
    my $ms = $found->{'aj-handler-timeout-ms'};
    return time + $ms / 1000 if defined $ms && $ms =~ /^\d+$/;
    my $at = $found->{'aj-handler-deadline'} // return time + 60;    # asked by hand
    my ($y, $mo, $d, $h, $mi, $s, $part, $zone) =
        $at =~ /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$/ or return 0;
    my $offset = $zone =~ /([+-])(\d\d):(\d\d)/ ? "${1}1" * ($2 * 3600 + $3 * 60) : 0;
    return timegm($s, $mi, $h, $d, $mo - 1, $y) + ($part // 0) - $offset;
}

sub begin {
    my $call = shift @waiting;
    my $encoding = $call->{found}{'aj-content-type'} // 'application/x-asyncjobs-task+json';
    return answer($call, { terminate => "encoding $encoding is not known" })
        if $encoding ne 'application/x-asyncjobs-task+json';
    my $task = eval { decode_json($call->{body}) };
    return answer($call, { terminate => 'the body is not a task' }) if ref $task ne 'HASH' || !defined $task->{id};
    $task->{tries} //= 1;
    return answer($call, { error => 'the deadline had passed before the work began' }) if $call->{until} <= time;

    pipe my $from, my $to or return answer($call, { error => "no pipe: $!" });
    my $child = fork // return answer($call, { error => "no process: $!" });
    if (!$child) {
        close $from;
        close $nats->socket if $nats->socket;    # the server must see it when the parent dies
        $SIG{TERM} = $SIG{INT} = 'DEFAULT';
        run($call, $task, $to);
        POSIX::_exit(0);
    }
    close $to;
    my $beat = $call->{found}{'aj-heartbeat-ms'};
    @$call{qw(child from in allowed beat next_beat)} =
        ($child, $from, '', $call->{until} - time, $beat ? $beat / 2000 : 0, $beat ? time + $beat / 2000 : 0);
    $calls{ fileno $from } = $call;
    return;
}

# In the child: do the work, and tell the parent in JSON, a line each; a result's bytes as they are behind the last one.
sub run {
    my ($call, $task, $to) = @_;
    binmode $to;
    local $| = 1;
    my $say = sub { syswrite $to, encode_json($_[0]) . "\n" };
    my $payload = defined $task->{payload} ? decode_base64($task->{payload}) : undef;
    my $result = eval { work::work($task, $payload, $call->{headers}, sub { $say->({ share => $_[0], note => $_[1] }) }) };
    if (my $err = $@) {
        $say->(ref $err eq 'HASH' ? $err : { error => "$err" });
        return;
    }
    my $bytes = encode_json({ bytes => length $result }) . "\n$result";
    my $at = 0;
    while ($at < length $bytes) {
        $at += syswrite($to, $bytes, length($bytes) - $at, $at) // return;
    }
    return;
}

# A child has said something, or has ended.
sub hear {
    my ($call) = @_;
    my $count = sysread $call->{from}, $call->{in}, 262_144, length $call->{in};
    while ($call->{in} =~ /^(\{.*?\})\n/) {
        my ($said, $rest) = (decode_json($1), $+[0]);
        if (exists $said->{share}) {
            substr($call->{in}, 0, $rest) = '';
            tell_progress($call, $said->{share}, $said->{note});
            next;
        }
        if (defined $said->{bytes}) {
            last if length $call->{in} < $rest + $said->{bytes};
            $said->{result} = substr $call->{in}, $rest, $said->{bytes};
        }
        return finish($call, $said);
    }
    finish($call, { error => 'the handler died' }) if !$count;
    return;
}

# Send an interim reply: a share from 0 to 1 and a note, or nothing but that the work goes on.
sub tell_progress {
    my ($call, $share, $note) = @_;
    return if !$call->{beat};                    # not on offer
    $call->{next_beat} = time + $call->{beat};
    if (!defined $share) {
        $nats->publish($call->{reply}, [ [ 'AJ-Progress', '' ] ], '');
        return;
    }
    $call->{until} = time + $call->{allowed};    # a number begins the time again
    $nats->publish($call->{reply}, [ [ 'AJ-Progress', sprintf '%.4f', $share ] ], encode_json({ note => $note }));
    return;
}

sub cancel {
    my ($on) = @_;
    for my $call (grep { ($_->{found}{'aj-cancel-subject'} // '') eq $on } values %calls) {
        finish($call, { error => 'cancelled' });
    }
    @waiting = grep { ($_->{found}{'aj-cancel-subject'} // '') ne $on } @waiting;
    return;
}

sub finish {
    my ($call, $said) = @_;
    delete $calls{ fileno $call->{from} };
    kill 'KILL', $call->{child};
    close $call->{from};
    waitpid $call->{child}, 0;
    answer($call, $said);
    begin() while @waiting && keys %calls < $AT_ONCE;
    return;
}

sub answer {
    my ($call, $said) = @_;
    $done{num_requests}++;
    $done{processing_time} += 1e9 * (time - $call->{began});
    if (defined(my $wrong = $said->{terminate} // $said->{error})) {
        $done{num_errors}++;
        $done{last_error} = $wrong;
    }
    my @headers;
    push @headers, [ 'AJ-Terminate', text($said->{terminate}) ] if defined $said->{terminate};
    push @headers, [ $said->{named} // 'AJ-Error', text($said->{error}) ] if defined $said->{error};
    push @headers, [ 'AJ-Retry-After-Ms', int $said->{after_ms} ]
        if defined $said->{after_ms} && defined $call->{found}{'aj-protocol'};
    return if $nats->publish($call->{reply}, \@headers, $said->{result} // '');
    my $most = $nats->max_payload;
    $nats->publish($call->{reply}, [ [ 'AJ-Terminate', "the result is larger than the $most bytes of a message" ] ], '');
    return;
}

# A text as a header: one line of UTF-8, not too long.
sub text {
    my ($text) = @_;
    $text =~ tr/\r\n\0/   /;
    my $bytes = encode_utf8($text);
    if (length $bytes > $MOST_TEXT) {
        $bytes = substr $bytes, 0, $MOST_TEXT;
        $bytes =~ s/[\xc0-\xff][\x80-\xbf]*\z//;    # a character that was cut
    }
    return $bytes;
}

# What is due: heartbeats and deadlines. Returns the seconds until the next of them.
sub on_time {
    my $next = time + 0.5;
    for my $call (values %calls) {
        if ($call->{until} <= time) {
            finish($call, { error => 'deadline exceeded' });
            next;
        }
        tell_progress($call) if $call->{beat} && $call->{next_beat} <= time;
        for my $due ($call->{until}, $call->{beat} ? $call->{next_beat} : ()) {
            $next = $due if $due < $next;
        }
    }
    return $next > time ? $next - time : 0;
}

my ($drained, $flushed);
until (defined $flushed && (!$nats->socket || $nats->pongs >= $flushed)) {
    if (!$nats->socket && !$nats->connect) {
        last if $stopping && !%calls;
        select undef, undef, undef, 0.2;
    }
    if ($stopping && !defined $drained) {    # take the subscription back, and what the server had sent before it knows
        $nats->drain;
        $drained = $nats->pongs + 1;
    }
    my $all_here = defined $drained && (!$nats->socket || $nats->pongs >= $drained);
    if ($all_here && !defined $flushed) {
        if (time - $stopping > $GRACE_S) {
            answer($_, { error => 'the handler stops' }) for splice @waiting;
            finish($_, { error => 'the handler stops' }) for values %calls;
        }
        if (!%calls) {
            $nats->ping;                     # what comes back after it has seen all our answers
            $flushed = $nats->pongs + 1;
        }
    }
    my $wait = on_time();
    my @handles = ($nats->socket // (), map { $_->{from} } values %calls);
    my %by_number = map { fileno $_ => $_ } @handles;
    for my $ready (IO::Select->new(@handles)->can_read($wait)) {
        if ($nats->socket && $ready == $nats->socket) { $nats->read }
        elsif (my $call = $calls{ fileno($ready) // -1 }) { hear($call) }
    }
}
exit 0;
