# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_ssds_global_optspecs
    string join \n h/help V/version
end

function __fish_ssds_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_ssds_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_ssds_using_subcommand
    set -l cmd (__fish_ssds_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c ssds -n "__fish_ssds_needs_command" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_needs_command" -s V -l version -d 'Print version'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "run" -d 'Run the daemon'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "check" -d 'Check a configuration and everything it names, without starting anything'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "doctor" -d 'Look at a board: camera, model, provider, broker, disk, clock, unit; say what to do'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "config" -d 'Print the sample configuration, its schema or its reference'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "teach" -d 'Teach a product\'s template from a defect-free picture'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "template" -d 'List, activate, roll back and verify taught templates'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "recipe" -d 'Check, apply and roll back a product\'s recipe: zones, thresholds, limits'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "whatif" -d 'What another recipe would have made of the archived parts'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "calibrate" -d 'The threshold that good parts need, and the false-reject rate it promises'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "label" -d 'Say what an inspected part really is: ok or ng'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "report" -d 'Counts, escapes and overkill per product'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "archive" -d 'List, show, verify and collect the evidence of inspected parts'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "camera" -d 'List cameras, or take pictures from one'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "trigger" -d 'Trigger the running station and tell the part\'s result'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "align" -d 'Register template and frame: the pose, its confidence, or a refusal'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "bench" -d 'Time the inference stage, or recording and publishing'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "model" -d 'Say what a model file holds, verify it, or build its TensorRT engine ahead'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "inspect" -d 'Inspect recorded pairs or one frame, offline'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "audit" -d 'Prove from a spool or a broker that no result is missing'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "eval" -d 'Score defect maps, or the network, against ground truth'
complete -c ssds -n "__fish_ssds_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand run" -l config -d 'Configuration file' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand run" -l seconds -d 'Stop after so many seconds; 0 = run until stopped' -r
complete -c ssds -n "__fish_ssds_using_subcommand run" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand check" -l config -d 'Configuration file' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand check" -l json -d 'Print the findings as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand check" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand doctor" -l config -d 'Configuration file' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand doctor" -l unit -d 'The unit that runs the daemon' -r
complete -c ssds -n "__fish_ssds_using_subcommand doctor" -l json -d 'Print the findings as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand config; and not __fish_seen_subcommand_from show sample reference schema help" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand config; and not __fish_seen_subcommand_from show sample reference schema help" -f -a "show" -d 'The effective configuration: every key with the value in force'
complete -c ssds -n "__fish_ssds_using_subcommand config; and not __fish_seen_subcommand_from show sample reference schema help" -f -a "sample" -d 'The commented sample file with every default'
complete -c ssds -n "__fish_ssds_using_subcommand config; and not __fish_seen_subcommand_from show sample reference schema help" -f -a "reference" -d 'The reference page (Markdown)'
complete -c ssds -n "__fish_ssds_using_subcommand config; and not __fish_seen_subcommand_from show sample reference schema help" -f -a "schema" -d 'A JSON Schema (2020-12) of the configuration file, or of an MQTT message'
complete -c ssds -n "__fish_ssds_using_subcommand config; and not __fish_seen_subcommand_from show sample reference schema help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'Configuration file' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from sample" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from reference" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from schema" -l topic -d 'The message: a kind (inspection, status, state, alarm, stats, command, response) or a topic below ssds/ (result/ok)' -r
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'The effective configuration: every key with the value in force'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "sample" -d 'The commented sample file with every default'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "reference" -d 'The reference page (Markdown)'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "schema" -d 'A JSON Schema (2020-12) of the configuration file, or of an MQTT message'
complete -c ssds -n "__fish_ssds_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l config -d 'Configuration file: names the template folder and the registration\'s limits' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l note -d 'A note kept with the template' -r
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l mm-per-px -d 'Size of a template pixel on the part, mm' -r
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l mask -d 'Registration mask, of the picture\'s size: 0 = leave out what moves or varies. It is kept with the template' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l region -d 'Register on this part only: left, top, width, height in the picture\'s pixels. It becomes the mask, or cuts it' -r
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l parts -d 'Good parts of the proof, and as many with a defect' -r
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l recipe -d 'Recipe that the proof goes by; the product\'s last applied one when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l sheet -d 'Write the proof as one picture' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l grab -d 'Take the picture with the configured camera instead; its control values are kept with the template, and a camera that later runs with others raises the alarm template_stale'
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l tolerance -d 'Learn from all pictures how good parts vary, for the variation model'
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l no-bank -d 'Keep the first picture alone; the others serve the tolerance only'
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l no-activate -d 'Store the version without putting it in force'
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l force -d 'Take the picture although it is blank, blurred, symmetric or self-similar'
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l prove -d 'Prove what can be seen on this product with simulated good and defective parts; the figures are printed'
complete -c ssds -n "__fish_ssds_using_subcommand teach" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand teach" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand template; and not __fish_seen_subcommand_from list activate rollback verify help" -l config -d 'Configuration file: names the template folder' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand template; and not __fish_seen_subcommand_from list activate rollback verify help" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand template; and not __fish_seen_subcommand_from list activate rollback verify help" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand template; and not __fish_seen_subcommand_from list activate rollback verify help" -f -a "list" -d 'List every version'
complete -c ssds -n "__fish_ssds_using_subcommand template; and not __fish_seen_subcommand_from list activate rollback verify help" -f -a "activate" -d 'Put a version in force; a running daemon takes it at its next start or recipe switch'
complete -c ssds -n "__fish_ssds_using_subcommand template; and not __fish_seen_subcommand_from list activate rollback verify help" -f -a "rollback" -d 'Put the version in force that was so before'
complete -c ssds -n "__fish_ssds_using_subcommand template; and not __fish_seen_subcommand_from list activate rollback verify help" -f -a "verify" -d 'Read everything and report damage; exit 1 when there is any'
complete -c ssds -n "__fish_ssds_using_subcommand template; and not __fish_seen_subcommand_from list activate rollback verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from list" -l config -d 'Configuration file: names the template folder' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from list" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from activate" -l config -d 'Configuration file: names the template folder' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from activate" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from activate" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from rollback" -l config -d 'Configuration file: names the template folder' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from rollback" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from rollback" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from verify" -l config -d 'Configuration file: names the template folder' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from verify" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "list" -d 'List every version'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "activate" -d 'Put a version in force; a running daemon takes it at its next start or recipe switch'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "rollback" -d 'Put the version in force that was so before'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Read everything and report damage; exit 1 when there is any'
complete -c ssds -n "__fish_ssds_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -l config -d 'Configuration file: names the template and state folders and what recipes build on' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -f -a "check" -d 'Check a recipe and everything it names, without applying it'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -f -a "apply" -d 'Check a recipe, show which archived parts it would decide otherwise, and put it in force'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -f -a "activate" -d 'Put a recipe in force that was applied before: the last of a product, or the one whose hash begins so'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -f -a "list" -d 'List the recipes that were applied'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -f -a "rollback" -d 'Put the recipe in force that was so before'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -f -a "show" -d 'Show which recipe is in force; exit 1 when none is'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and not __fish_seen_subcommand_from check apply activate list rollback show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from check" -l config -d 'Configuration file: names the template and state folders and what recipes build on' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from check" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from apply" -l max-flips -d 'Do not put it in force when it would decide more archived parts otherwise; exit 1' -r
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from apply" -l parts -d 'Newest archived parts that are decided again; 0 = none' -r
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from apply" -l config -d 'Configuration file: names the template and state folders and what recipes build on' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from apply" -l dry-run -d 'Show and check only; the recipe before it stays in force'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from apply" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from apply" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from activate" -l config -d 'Configuration file: names the template and state folders and what recipes build on' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from activate" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from activate" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from list" -l config -d 'Configuration file: names the template and state folders and what recipes build on' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from list" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from rollback" -l config -d 'Configuration file: names the template and state folders and what recipes build on' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from rollback" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from rollback" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from show" -l config -d 'Configuration file: names the template and state folders and what recipes build on' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from show" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from help" -f -a "check" -d 'Check a recipe and everything it names, without applying it'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from help" -f -a "apply" -d 'Check a recipe, show which archived parts it would decide otherwise, and put it in force'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from help" -f -a "activate" -d 'Put a recipe in force that was applied before: the last of a product, or the one whose hash begins so'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the recipes that were applied'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from help" -f -a "rollback" -d 'Put the recipe in force that was so before'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show which recipe is in force; exit 1 when none is'
complete -c ssds -n "__fish_ssds_using_subcommand recipe; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand whatif" -l config -d 'Configuration file: names the archive and what recipes build on' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand whatif" -l recipe -d 'The recipe\'s file' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand whatif" -l verdict -d 'Only these verdicts: ok, ng, error' -r
complete -c ssds -n "__fish_ssds_using_subcommand whatif" -l since -d 'Only events since then: 2026-11-25T08:00:00Z, or a length of time such as 90m, 24h, 7d' -r
complete -c ssds -n "__fish_ssds_using_subcommand whatif" -l html -d 'Write a page (one HTML file) with the parts that would flip' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand whatif" -l pictures -d 'Most flips with pictures on that page; the others are listed' -r
complete -c ssds -n "__fish_ssds_using_subcommand whatif" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand whatif" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l config -d 'Configuration file: names product, network and archive' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l good -d 'Folder of pictures of good parts (PNG, JPEG, BMP, TIFF)' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l verdict -d 'Only these verdicts: ok, ng, error' -r
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l since -d 'Only events since then: 2026-11-25T08:00:00Z, or a length of time such as 90m, 24h, 7d' -r
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l max-reject-rate -d 'False-reject rate to stay under' -r
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l confidence -d 'Confidence of that statement' -r
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l margin -d 'Added to the threshold that the good parts need' -r
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l archive -d 'Take the good parts of the archive: decided OK and not labelled ng, or labelled ok'
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand calibrate" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand label" -l note -d 'What there is to say about it' -r
complete -c ssds -n "__fish_ssds_using_subcommand label" -l config -d 'Configuration file: names the state folder' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand label" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand label" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand report" -l config -d 'Configuration file: names the state folder' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand report" -l since -d 'Only parts since then: 2026-11-25T08:00:00Z, or a length of time such as 90m, 24h, 7d' -r
complete -c ssds -n "__fish_ssds_using_subcommand report" -l html -d 'Write a page (one HTML file) with plots' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand report" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand report" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -l config -d 'Configuration file: names the archive\'s folder and what it may hold' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -f -a "list" -d 'List the events with evidence, newest last'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -f -a "show" -d 'Show one event: what was decided, and its files'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -f -a "verify" -d 'Check every file of every event and decide it again; exit 1 when something is damaged or decided otherwise'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -f -a "gc" -d 'Remove the oldest evidence that is over its quota or keeps the disk from having its free space; never an event\'s row'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -f -a "init" -d 'Begin a new archive in the configured folder, or take over the one that is there'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and not __fish_seen_subcommand_from list show verify gc init help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from list" -l verdict -d 'Only these verdicts: ok, ng, error' -r
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from list" -l since -d 'Only events since then: 2026-11-25T08:00:00Z, or a length of time such as 90m, 24h, 7d' -r
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from list" -l limit -d 'Only the newest of them' -r
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from list" -l config -d 'Configuration file: names the archive\'s folder and what it may hold' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from list" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from show" -l config -d 'Configuration file: names the archive\'s folder and what it may hold' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from show" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from verify" -l verdict -d 'Only these verdicts: ok, ng, error' -r
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from verify" -l since -d 'Only events since then: 2026-11-25T08:00:00Z, or a length of time such as 90m, 24h, 7d' -r
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from verify" -l config -d 'Configuration file: names the archive\'s folder and what it may hold' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from verify" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from gc" -l config -d 'Configuration file: names the archive\'s folder and what it may hold' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from gc" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from gc" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from init" -l config -d 'Configuration file: names the archive\'s folder and what it may hold' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from init" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from init" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the events with evidence, newest last'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show one event: what was decided, and its files'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Check every file of every event and decide it again; exit 1 when something is damaged or decided otherwise'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "gc" -d 'Remove the oldest evidence that is over its quota or keeps the disk from having its free space; never an event\'s row'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "init" -d 'Begin a new archive in the configured folder, or take over the one that is there'
complete -c ssds -n "__fish_ssds_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and not __fish_seen_subcommand_from list grab watch help" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and not __fish_seen_subcommand_from list grab watch help" -f -a "list" -d 'One JSON line for each camera found: formats, sizes, rates, controls with ranges'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and not __fish_seen_subcommand_from list grab watch help" -f -a "grab" -d 'Take pictures: PNG files and one JSON line each'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and not __fish_seen_subcommand_from list grab watch help" -f -a "watch" -d 'Watch a camera: rate, jitter, losses and age of its frames, as one JSON line'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and not __fish_seen_subcommand_from list grab watch help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l config -d 'Configuration file whose camera section is used' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l device -d 'A device instead: a path such as /dev/video0, or a GenICam camera\'s address, serial number or name' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l backend -d 'Back end, with --device' -r -f -a "auto\t''
v4l2\t''
uvc\t''
genicam\t''"
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l format -d 'Pixel format, with --device' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l width -d 'Picture width, px, with --device' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l height -d 'Picture height, px, with --device' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l rate -d 'Frames a second, with --device' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -s n -l count -d 'Number of pictures' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l out -d 'Folder for the pictures; it is made' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l timeout-ms -d 'Longest wait for one picture, ms' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -l software-trigger -d 'Trigger each picture by software, with --device (genicam)'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from grab" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l config -d 'Configuration file whose camera section is used' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l device -d 'A device instead: a path such as /dev/video0, or a GenICam camera\'s address, serial number or name' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l backend -d 'Back end, with --device' -r -f -a "auto\t''
v4l2\t''
uvc\t''
genicam\t''"
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l format -d 'Pixel format, with --device' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l width -d 'Picture width, px, with --device' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l height -d 'Picture height, px, with --device' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l rate -d 'Frames a second, with --device' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l seconds -d 'For so many seconds' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l every -d 'Print a line each so many seconds as well; 0 = only at the end' -r
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -l software-trigger -d 'Trigger each picture by software, with --device (genicam)'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from watch" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from help" -f -a "list" -d 'One JSON line for each camera found: formats, sizes, rates, controls with ranges'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from help" -f -a "grab" -d 'Take pictures: PNG files and one JSON line each'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from help" -f -a "watch" -d 'Watch a camera: rate, jitter, losses and age of its frames, as one JSON line'
complete -c ssds -n "__fish_ssds_using_subcommand camera; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand trigger" -l config -d 'Configuration file: names the station\'s address and token' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand trigger" -l part-id -d 'The part\'s serial number' -r
complete -c ssds -n "__fish_ssds_using_subcommand trigger" -l job-id -d 'The order it belongs to' -r
complete -c ssds -n "__fish_ssds_using_subcommand trigger" -l request-id -d 'A key of your own, which the answer bears' -r
complete -c ssds -n "__fish_ssds_using_subcommand trigger" -l timeout-ms -d 'Longest wait for the result, ms' -r
complete -c ssds -n "__fish_ssds_using_subcommand trigger" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand trigger" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand align" -l pairs -d 'Pair manifest (JSON lines) to register' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand align" -l out -d 'Where the answers to --pairs go, a JSON line a pair' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand align" -l template -d 'Template picture of a single pair' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand align" -l image -d 'Frame picture of a single pair' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand align" -l mask -d 'Registration mask of a single pair\'s template: 0 = leave out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand align" -l region -d 'The part of the template to register on: left, top, width, height in its pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand align" -l model -d 'What the last stage leaves free: similarity or affine' -r
complete -c ssds -n "__fish_ssds_using_subcommand align" -l min-confidence -d 'Lowest confidence accepted, 0 to 1' -r
complete -c ssds -n "__fish_ssds_using_subcommand align" -l threads -d 'Threads that the fallback search may use; 0 = one a core' -r
complete -c ssds -n "__fish_ssds_using_subcommand align" -l repeat -d 'Align each pair this often and report the fastest time' -r
complete -c ssds -n "__fish_ssds_using_subcommand align" -l max-points -d 'Points at full size that the pose is refined on' -r
complete -c ssds -n "__fish_ssds_using_subcommand align" -l no-fallback -d 'Never walk through all rotations and scales'
complete -c ssds -n "__fish_ssds_using_subcommand align" -l json -d 'Print a single pair\'s answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand align" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l model -d 'The network' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l size -d 'Size of the simulated frames, pixels, WxH or one side; may be given more than once' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l pairs -d 'Bench the pairs of this manifest instead of simulated frames' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l frames -d 'Frames that are measured, for each size' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l warm-up -d 'Frames before that' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l seed -d 'Seed of the simulated frames' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l rounds -d 'Rounds of stages alone, line at full speed, line one frame at a time (with --line); --frames is divided among them' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l library -d 'libonnxruntime.so or its folder; searched in ORT_DYLIB_PATH, beside the program, /usr/lib/ssds and the system when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l providers -d 'Execution providers (tensorrt, cuda, cpu), tried in this order' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l threads -d 'CPU threads; 0 = one a core' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l tile-px -d 'Largest side of a tile, pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l overlap-px -d 'Least overlap of tiles, pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l batch -d 'Tiles computed at once' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l line -d 'Measure the running line too: throughput beside its slowest stage, latency beside the sum of its stages'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l json -d 'Print JSON'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l required -d 'Refuse any provider but the first'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l fp32 -d 'Keep TensorRT at 32 bits'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -l spinning -d 'Let idle CPU threads spin for work'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -f -a "publish" -d 'What durable recording costs on this disk, and how fast a backlog leaves for the broker'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and not __fish_seen_subcommand_from publish help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from publish" -l dir -d 'Folder on the disk to measure; the scratch files in it are removed' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from publish" -l commits -d 'Commits at line rate for the first figure' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from publish" -l events -d 'Events for the second figure' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from publish" -l backlog -d 'Backlog for the third figure' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from publish" -l window -d 'Results in flight; 100 is the daemon\'s default, mosquitto_pub\'s own is 20' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from publish" -l rounds -d 'How often the third figure is measured, in turns' -r
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from publish" -l json -d 'Print the figures as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from publish" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from help" -f -a "publish" -d 'What durable recording costs on this disk, and how fast a backlog leaves for the broker'
complete -c ssds -n "__fish_ssds_using_subcommand bench; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand model; and not __fish_seen_subcommand_from info verify doctor build help" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand model; and not __fish_seen_subcommand_from info verify doctor build help" -f -a "info" -d 'Print what the file says about itself; needs no ONNX Runtime'
complete -c ssds -n "__fish_ssds_using_subcommand model; and not __fish_seen_subcommand_from info verify doctor build help" -f -a "verify" -d 'Load it as the daemon does and compare it with its golden vector'
complete -c ssds -n "__fish_ssds_using_subcommand model; and not __fish_seen_subcommand_from info verify doctor build help" -f -a "doctor" -d 'Look at library, GPU, providers, model and engine, and say what is not as the settings ask'
complete -c ssds -n "__fish_ssds_using_subcommand model; and not __fish_seen_subcommand_from info verify doctor build help" -f -a "build" -d 'Build the TensorRT engine ahead'
complete -c ssds -n "__fish_ssds_using_subcommand model; and not __fish_seen_subcommand_from info verify doctor build help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from info" -l model -d 'The network' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from info" -l sha256 -d 'SHA-256 the file must have' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from info" -l trusted-key -d 'Ed25519 public key (64 hexadecimal digits or a PEM file) that may have signed it; may be given more than once' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from info" -l json -d 'Print JSON'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l model -d 'The network' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l sha256 -d 'SHA-256 the file must have' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l trusted-key -d 'Ed25519 public key (64 hexadecimal digits or a PEM file) that may have signed it; may be given more than once' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l library -d 'libonnxruntime.so or its folder; searched in ORT_DYLIB_PATH, beside the program, /usr/lib/ssds and the system when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l providers -d 'Execution providers (tensorrt, cuda, cpu), tried in this order' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l threads -d 'CPU threads; 0 = one a core' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l tile-px -d 'Largest side of a tile, pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l overlap-px -d 'Least overlap of tiles, pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l batch -d 'Tiles computed at once' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l config -d 'Take model and settings from the daemon\'s configuration file instead' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l json -d 'Print JSON'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l required -d 'Refuse any provider but the first'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l fp32 -d 'Keep TensorRT at 32 bits'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -l spinning -d 'Let idle CPU threads spin for work'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l model -d 'The network' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l sha256 -d 'SHA-256 the file must have' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l trusted-key -d 'Ed25519 public key (64 hexadecimal digits or a PEM file) that may have signed it; may be given more than once' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l library -d 'libonnxruntime.so or its folder; searched in ORT_DYLIB_PATH, beside the program, /usr/lib/ssds and the system when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l providers -d 'Execution providers (tensorrt, cuda, cpu), tried in this order' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l threads -d 'CPU threads; 0 = one a core' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l tile-px -d 'Largest side of a tile, pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l overlap-px -d 'Least overlap of tiles, pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l batch -d 'Tiles computed at once' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l config -d 'Take model and settings from the daemon\'s configuration file instead' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l json -d 'Print JSON'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l required -d 'Refuse any provider but the first'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l fp32 -d 'Keep TensorRT at 32 bits'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -l spinning -d 'Let idle CPU threads spin for work'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from doctor" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l model -d 'The network' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l sha256 -d 'SHA-256 the file must have' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l trusted-key -d 'Ed25519 public key (64 hexadecimal digits or a PEM file) that may have signed it; may be given more than once' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l library -d 'libonnxruntime.so or its folder; searched in ORT_DYLIB_PATH, beside the program, /usr/lib/ssds and the system when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l providers -d 'Execution providers (tensorrt, cuda, cpu), tried in this order' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l threads -d 'CPU threads; 0 = one a core' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l tile-px -d 'Largest side of a tile, pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l overlap-px -d 'Least overlap of tiles, pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l batch -d 'Tiles computed at once' -r
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l config -d 'Take model and settings from the daemon\'s configuration file instead' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l engines -d 'Folder of built engines' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l json -d 'Print JSON'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l required -d 'Refuse any provider but the first'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l fp32 -d 'Keep TensorRT at 32 bits'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l spinning -d 'Let idle CPU threads spin for work'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -l force -d 'Build also when there is a good one'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from build" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "info" -d 'Print what the file says about itself; needs no ONNX Runtime'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Load it as the daemon does and compare it with its golden vector'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "doctor" -d 'Look at library, GPU, providers, model and engine, and say what is not as the settings ask'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "build" -d 'Build the TensorRT engine ahead'
complete -c ssds -n "__fish_ssds_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l pairs -d 'Pair manifest (JSON lines)' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l template -d 'Template picture of a single inspection' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l image -d 'Frame of a single inspection' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l model -d 'The network' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l maps -d 'Folder for the defect maps' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l out -d 'File for the event lines (JSON lines); standard output when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l overlays -d 'Folder for overlay pictures of what is NG' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l method -d 'What finds the defects: ssds (the network), or a comparator: absdiff, ssim, variation' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l library -d 'libonnxruntime.so; searched in ORT_DYLIB_PATH, beside the program, in runtime/, /usr/lib/ssds and the system when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l providers -d 'Execution providers, tried in this order' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l threads -d 'CPU threads inside one run of the network' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l tile-px -d 'Side of a tile, a multiple of 16; larger frames are tiled' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l overlap-px -d 'Overlap of neighbouring tiles' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l threshold -d 'A pixel scoring at least this is defective' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l min-area-px -d 'Smallest region that counts, frame pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l max-rotation-degrees -d 'Largest rotation looked for, degrees either way' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l residual-px -d 'Largest local shift, px, that is removed between registration and network; 0 = off' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -l min-confidence -d 'A registration below this confidence is refused' -r
complete -c ssds -n "__fish_ssds_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l db -d 'Spool file to read (ssds.db), also while the daemon writes it' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l broker -d 'Broker to listen to: mqtt://HOST:PORT or mqtts://HOST:PORT' -r
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l prefix -d 'Path before /ssds/; `+` for any level, as in `acme/hz/smt/line3/+`' -r
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l seconds -d 'Stop listening after this long; else at Ctrl-C' -r
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l until -d 'Stop listening once a result with this number or a later one came' -r
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l username -d 'User name at the broker' -r
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l password-file -d 'File with the password' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l ca-file -d 'Authorities for mqtts (PEM); the system\'s when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l cert-file -d 'Own certificate (PEM)' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l key-file -d 'Its key (PEM)' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand audit" -l json -d 'Print the answer as JSON'
complete -c ssds -n "__fish_ssds_using_subcommand audit" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l pairs -d 'Pair manifest with ground truth (JSON lines)' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l maps -d 'Folder of maps `<pair>.png` to score; without it the pairs are registered and detected with the model' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l model -d 'The network' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l merge-px -d 'Join pieces nearer than about twice this' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l pad-px -d 'Grow the boxes of objects before matching' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l iou -d 'Intersection over union a match needs' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l html -d 'Folder for charts and a page of the worst pairs' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l worst -d 'How many pairs that page shows' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l method -d 'What finds the defects: ssds (the network), or a comparator: absdiff, ssim, variation' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l library -d 'libonnxruntime.so; searched in ORT_DYLIB_PATH, beside the program, in runtime/, /usr/lib/ssds and the system when left out' -r -F
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l providers -d 'Execution providers, tried in this order' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l threads -d 'CPU threads inside one run of the network' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l tile-px -d 'Side of a tile, a multiple of 16; larger frames are tiled' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l overlap-px -d 'Overlap of neighbouring tiles' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l threshold -d 'A pixel scoring at least this is defective' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l min-area-px -d 'Smallest region that counts, frame pixels' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l max-rotation-degrees -d 'Largest rotation looked for, degrees either way' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l residual-px -d 'Largest local shift, px, that is removed between registration and network; 0 = off' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l min-confidence -d 'A registration below this confidence is refused' -r
complete -c ssds -n "__fish_ssds_using_subcommand eval" -l json -d 'Print JSON instead of a table'
complete -c ssds -n "__fish_ssds_using_subcommand eval" -s h -l help -d 'Print help'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "run" -d 'Run the daemon'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "check" -d 'Check a configuration and everything it names, without starting anything'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "doctor" -d 'Look at a board: camera, model, provider, broker, disk, clock, unit; say what to do'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "config" -d 'Print the sample configuration, its schema or its reference'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "teach" -d 'Teach a product\'s template from a defect-free picture'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "template" -d 'List, activate, roll back and verify taught templates'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "recipe" -d 'Check, apply and roll back a product\'s recipe: zones, thresholds, limits'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "whatif" -d 'What another recipe would have made of the archived parts'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "calibrate" -d 'The threshold that good parts need, and the false-reject rate it promises'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "label" -d 'Say what an inspected part really is: ok or ng'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "report" -d 'Counts, escapes and overkill per product'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "archive" -d 'List, show, verify and collect the evidence of inspected parts'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "camera" -d 'List cameras, or take pictures from one'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "trigger" -d 'Trigger the running station and tell the part\'s result'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "align" -d 'Register template and frame: the pose, its confidence, or a refusal'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "bench" -d 'Time the inference stage, or recording and publishing'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "model" -d 'Say what a model file holds, verify it, or build its TensorRT engine ahead'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "inspect" -d 'Inspect recorded pairs or one frame, offline'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "audit" -d 'Prove from a spool or a broker that no result is missing'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "eval" -d 'Score defect maps, or the network, against ground truth'
complete -c ssds -n "__fish_ssds_using_subcommand help; and not __fish_seen_subcommand_from run check doctor config teach template recipe whatif calibrate label report archive camera trigger align bench model inspect audit eval help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'The effective configuration: every key with the value in force'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "sample" -d 'The commented sample file with every default'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "reference" -d 'The reference page (Markdown)'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "schema" -d 'A JSON Schema (2020-12) of the configuration file, or of an MQTT message'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "list" -d 'List every version'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "activate" -d 'Put a version in force; a running daemon takes it at its next start or recipe switch'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "rollback" -d 'Put the version in force that was so before'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "verify" -d 'Read everything and report damage; exit 1 when there is any'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from recipe" -f -a "check" -d 'Check a recipe and everything it names, without applying it'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from recipe" -f -a "apply" -d 'Check a recipe, show which archived parts it would decide otherwise, and put it in force'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from recipe" -f -a "activate" -d 'Put a recipe in force that was applied before: the last of a product, or the one whose hash begins so'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from recipe" -f -a "list" -d 'List the recipes that were applied'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from recipe" -f -a "rollback" -d 'Put the recipe in force that was so before'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from recipe" -f -a "show" -d 'Show which recipe is in force; exit 1 when none is'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "list" -d 'List the events with evidence, newest last'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "show" -d 'Show one event: what was decided, and its files'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "verify" -d 'Check every file of every event and decide it again; exit 1 when something is damaged or decided otherwise'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "gc" -d 'Remove the oldest evidence that is over its quota or keeps the disk from having its free space; never an event\'s row'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "init" -d 'Begin a new archive in the configured folder, or take over the one that is there'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from camera" -f -a "list" -d 'One JSON line for each camera found: formats, sizes, rates, controls with ranges'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from camera" -f -a "grab" -d 'Take pictures: PNG files and one JSON line each'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from camera" -f -a "watch" -d 'Watch a camera: rate, jitter, losses and age of its frames, as one JSON line'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from bench" -f -a "publish" -d 'What durable recording costs on this disk, and how fast a backlog leaves for the broker'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "info" -d 'Print what the file says about itself; needs no ONNX Runtime'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "verify" -d 'Load it as the daemon does and compare it with its golden vector'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "doctor" -d 'Look at library, GPU, providers, model and engine, and say what is not as the settings ask'
complete -c ssds -n "__fish_ssds_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "build" -d 'Build the TensorRT engine ahead'
