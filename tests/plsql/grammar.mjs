// Asks Oracle's grammar (the one of the ANTLR project, compiled) about one statement.

import { CharStream, CommonTokenStream, ErrorListener, ParseTreeWalker, PredictionMode } from 'antlr4';
import { PlSqlLexer, PlSqlParser, PlSqlParserListener } from '@griffithswaite/ts-plsql-parser';

class Listener extends ErrorListener {
  constructor(piece, complaints) {
    super();
    this.piece = piece;
    this.complaints = complaints;
  }

  syntaxError(recognizer, symbol, line, column, message) {
    const text = `grammar: ${message.length > 160 ? `${message.slice(0, 160)} ...` : message}`;
    this.complaints.push({ file: this.piece.file, line: this.piece.line + line - 1, text });
  }
}

// The grammar takes a SELECT without FROM, which is legal in 23ai only.
class Queries extends PlSqlParserListener {
  constructor(piece, complaints) {
    super();
    this.enterQuery_block = (context) => {
      if (!context.from_clause()) {
        const text = 'SELECT without FROM: 19c and 21c need FROM dual';
        complaints.push({ file: piece.file, line: piece.line + context.start.line - 1, text });
      }
    };
  }
}

// The fast way of predicting is right whenever it finds no fault; where it finds one, the thorough way decides.
export function parse(piece) {
  const complaints = read(piece, PredictionMode.SLL);
  return complaints.length === 0 ? complaints : read(piece, PredictionMode.LL);
}

function read(piece, mode) {
  const complaints = [];
  const listener = new Listener(piece, complaints);
  const lexer = new PlSqlLexer(new CharStream(piece.text));
  lexer.removeErrorListeners();
  lexer.addErrorListener(listener);
  const parser = new PlSqlParser(new CommonTokenStream(lexer));
  parser.removeErrorListeners();
  parser.addErrorListener(listener);
  parser._interp.predictionMode = mode;
  const tree = parser.sql_script();
  if (complaints.length === 0) ParseTreeWalker.DEFAULT.walk(new Queries(piece, complaints), tree);
  return complaints;
}
