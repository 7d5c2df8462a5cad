package work;
# The job: this file is yours. It runs in a process of its own for each task, so it may block, and may be killed.
use strict;
use warnings;
use JSON::PP;
use Time::HiRes qw(sleep time);

# Do a task. Gets the task (decoded JSON), its payload's bytes (undef for none), the request's headers (name => text) and a
# function that tells progress, $tell->($share, $note), or only that we live, $tell->(). Returns the result's bytes; dies with { error => text },
# { terminate => text } or { error => text, after_ms => number }, or with anything else for a failed try.
sub work {
    my ($task, $payload, $headers, $tell) = @_;
    my $order = eval { decode_json($payload // '{}') };
    $order = {} if !defined $payload || !length $payload;
    die { terminate => 'payload is not a JSON object' } if ref $order ne 'HASH';
    my $do = $order->{do} // 'ok';
    my $text = $order->{error} // 'failed';
    my $pause = ($order->{ms} // 0) / 1000;
    my %found = map { lc $_ => $headers->{$_} } keys %$headers;

    return $payload if $do eq 'echo';
    return ''       if $do eq 'empty';
    return join '', map { chr } 0 .. 255 if $do eq 'binary';
    return 'x' x ($order->{bytes} // 0) if $do eq 'big';
    return encode_json({ headers => $headers, map { $_ => $task->{$_} } qw(id type tries) }) if $do eq 'headers';
    return encode_json(
        {
            deadline     => $found{'aj-handler-deadline'},
            timeout_ms   => defined $found{'aj-handler-timeout-ms'} ? 0 + $found{'aj-handler-timeout-ms'} : undef,
            content_type => $found{'aj-content-type'},
            protocol     => $found{'aj-protocol'},
            invocation   => $found{'aj-invocation'},
        }
    ) if $do eq 'deadline';
    die { error => $text } if $do eq 'fail' || ($do eq 'fail_once' && $task->{tries} == 1);
    die { error => $text, after_ms => $order->{ms} // 0 } if $do eq 'retry_after' && $task->{tries} == 1;
    die { error => "d\x{e9}pass\x{e9} \x{2603} \x{1f600}" } if $do eq 'unicode_error';
    die { terminate => $text } if $do eq 'terminate';
    die { terminate => $text, error => 'not this one' } if $do eq 'both';
    die { error => $text, named => 'aj-error' } if $do eq 'case';
    if ($do eq 'crash') {
        kill 'KILL', getppid, $$;
    }
    sleep $pause if $do eq 'sleep';
    sleep 3600   if $do eq 'cancel' || $do eq 'late';    # until we are killed
    if ($do eq 'heartbeat') {                            # beside those that the handler sends by itself
        my $end = time + $pause;
        while (time < $end) {
            $tell->();
            sleep(($order->{every_ms} // 1) / 1000);
        }
    }
    if ($do eq 'progress') {
        my $steps = $order->{steps} // 1;
        for my $step (1 .. $steps) {
            sleep $pause;
            $tell->($step / $steps, "step $step of $steps");
        }
    }
    return encode_json({ handler => 'perl', id => $task->{id}, try => $task->{tries} });
}

1;
